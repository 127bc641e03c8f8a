// Images -> the tensor that a graph takes. All that is checked of images is checked here.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../error.hpp"
#include "../image.hpp"
#include "../model_info.hpp"
#include "words.hpp"

namespace lpips::detail {

// How 8-bit pixels of a format are laid out: bytes of one, and where in it its red, green, blue and alpha are.
struct Layout {
  Format format;
  std::size_t bytes;
  std::array<std::size_t, 3> colours;
  int alpha;  // -1: none
};

inline constexpr std::array<Layout, 6> layouts = {{{Format::rgb, 3, {0, 1, 2}, -1},
                                                   {Format::bgr, 3, {2, 1, 0}, -1},
                                                   {Format::rgba, 4, {0, 1, 2}, 3},
                                                   {Format::bgra, 4, {2, 1, 0}, 3},
                                                   {Format::rgbx, 4, {0, 1, 2}, -1},
                                                   {Format::bgrx, 4, {2, 1, 0}, -1}}};

inline const Layout* layout_of(Format format) {
  for (const Layout& layout : layouts) {
    if (layout.format == format) return &layout;
  }
  return nullptr;
}

inline bool is_planar(Format format) {
  return format == Format::planar_unit || format == Format::planar_symmetric;
}

// A batch's tensor: uint8 [N,H,W,3], or float32 [N,3,H,W] in [-1,1]; the other vector is empty.
struct Batch {
  std::size_t count = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::vector<float> floats{};
  std::vector<std::uint8_t> bytes{};
};

// The product; an Error that says what of if it overflows, or is more than memory could be addressed with.
inline std::size_t product(std::initializer_list<std::size_t> factors, const std::string& of) {
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max() / 2;
  std::size_t result = 1;
  for (const std::size_t factor : factors) {
    if (factor != 0 && result > most / factor) {
      throw Error(Code::shape, of + " overflows what can be addressed; give the true sides of an image");
    }
    result *= factor;
  }
  return result;
}

// Sides, stride and length of one image's buffer. `name` is what errors call it.
inline void check_image(const Image& image, const ModelInfo& info, const std::string& name) {
  const std::string size = size_of(image.width, image.height);
  if (image.width < 1 || image.height < 1) {
    throw Error(Code::shape, name + ": is " + size + " (width x height); give an image with pixels");
  }
  const auto width = static_cast<std::size_t>(image.width), height = static_cast<std::size_t>(image.height);
  // Of the tensor in float32, which is the largest that is made of it.
  const std::size_t values = product({width, height, 3, sizeof(float)}, name + ": " + size) / sizeof(float);
  const Layout* layout = layout_of(image.format);
  if (layout == nullptr && !is_planar(image.format)) {
    throw Error(Code::usage, name + ": format " + std::to_string(static_cast<int>(image.format)) +
                                 " is unknown; give one of lpips::Format");
  }
  if (std::min(image.width, image.height) < info.min_size) {
    throw Error(Code::shape, name + ": is " + size + " (width x height); " + info.net + " needs at least " +
                                 size_of(info.min_size, info.min_size) + ", give a larger one");
  }
  std::size_t needed = values * sizeof(float);
  if (layout != nullptr) {
    const std::size_t row = product({width, layout->bytes}, name + ": a row of " + size);
    if (image.stride != 0 && image.stride < row) {
      throw Error(Code::buffer, name + ": stride " + std::to_string(image.stride) + " is smaller than a row of " +
                                    std::to_string(row) + " bytes; give the bytes from one row to the next");
    }
    const std::size_t stride = image.stride == 0 ? row : image.stride;
    const std::string of = name + ": " + size + " with stride " + std::to_string(stride);
    needed = product({stride, height}, of) - (stride - row);
  } else if (image.stride != 0) {
    throw Error(Code::usage, name + ": planes of float have no stride; give them without gaps, and stride 0");
  }
  if (image.data == nullptr) {
    throw Error(Code::buffer, name + ": its buffer is null; give " + std::to_string(needed) + " bytes");
  }
  if (image.bytes < needed) {
    throw Error(Code::buffer, name + ": its buffer has " + std::to_string(image.bytes) + " bytes, " + size +
                                  " needs " + std::to_string(needed) + "; give the whole image");
  }
  if (is_planar(image.format) && reinterpret_cast<std::uintptr_t>(image.data) % alignof(float) != 0) {
    throw Error(Code::buffer, name + ": its planes of float begin at an address that no float can have; align them");
  }
}

// `store(at, values)` takes red, green and blue of each pixel, row by row.
template <typename Store>
void each_pixel(const Image& image, const std::string& name, Store store) {
  const Layout& layout = *layout_of(image.format);
  const auto width = static_cast<std::size_t>(image.width), height = static_cast<std::size_t>(image.height);
  const std::size_t stride = image.stride == 0 ? width * layout.bytes : image.stride;
  const auto* data = static_cast<const std::uint8_t*>(image.data);
  std::size_t transparent = 0;
  for (std::size_t y = 0; y < height; ++y) {
    const std::uint8_t* pixel = data + y * stride;
    for (std::size_t x = 0; x < width; ++x, pixel += layout.bytes) {
      if (layout.alpha >= 0) transparent += pixel[layout.alpha] < 255;
      store(y * width + x, pixel[layout.colours[0]], pixel[layout.colours[1]], pixel[layout.colours[2]]);
    }
  }
  if (transparent > 0) {
    throw Error(Code::transparent, name + ": " + std::to_string(transparent) + " of " + std::to_string(width * height) +
                                       " pixels are transparent, and LPIPS is defined on opaque ones; put them over a "
                                       "background, or say rgbx or bgrx if that byte means nothing");
  }
}

inline void check_value(float value, float low, std::size_t at, const std::string& name) {
  if (!std::isfinite(value)) {
    throw Error(Code::value, name + ": value " + std::to_string(at) + " is not finite; repair whatever made it");
  }
  if (value < low || value > 1) {
    throw Error(Code::value, name + ": value " + std::to_string(at) + " is " + std::to_string(value) +
                                 ", outside of the range " + (low < 0 ? "-1..1" : "0..1") +
                                 "; state the true range, or clip them");
  }
}

// As numpy does it in lpips_runtime/arrays.py: v / 127.5 - 1 rounded once, 2 x - 1 in float32.
inline void fill(float* out, const Image& image, const std::string& name) {
  const std::size_t plane = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height);
  if (!is_planar(image.format)) {
    std::array<float, 256> table;
    for (std::size_t v = 0; v < 256; ++v) table[v] = (static_cast<float>(v) - 127.5f) / 127.5f;
    each_pixel(image, name, [&](std::size_t at, std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
      out[at] = table[red];
      out[plane + at] = table[green];
      out[2 * plane + at] = table[blue];
    });
    return;
  }
  const auto* values = static_cast<const float*>(image.data);
  const bool unit = image.format == Format::planar_unit;
  for (std::size_t at = 0; at < 3 * plane; ++at) {
    check_value(values[at], unit ? 0.0f : -1.0f, at, name);
    out[at] = unit ? values[at] * 2 - 1 : values[at];
  }
}

inline void fill(std::uint8_t* out, const Image& image, const std::string& name) {
  if (is_planar(image.format)) {
    throw Error(Code::value, name + ": this model takes 8-bit pixels (exported with --input uint8), and rounding floats "
                                    "would change them; give 8-bit ones");
  }
  each_pixel(image, name, [&](std::size_t at, std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
    out[3 * at] = red;
    out[3 * at + 1] = green;
    out[3 * at + 2] = blue;
  });
}

// What errors call image k of several.
inline std::string name_of(const std::string& name, std::size_t k, std::size_t count) {
  return count == 1 ? name : name + "[" + std::to_string(k) + "]";
}

// Checks images against the model and each other.
inline void check_images(const Image* images, std::size_t count, const ModelInfo& info, const std::string& name) {
  if (count == 0) throw Error(Code::shape, name + ": holds no image; give at least one");
  if (images == nullptr) throw Error(Code::buffer, name + ": its images are null; give " + detail::images(count));
  for (std::size_t k = 0; k < count; ++k) {
    const std::string one = name_of(name, k, count);
    check_image(images[k], info, one);
    if (images[k].width != images[0].width || images[k].height != images[0].height) {
      throw Error(Code::shape, one + ": is " + size_of(images[k].width, images[k].height) + ", the first is " +
                                   size_of(images[0].width, images[0].height) +
                                   " (width x height); give batches of images of one size");
    }
  }
}

inline Batch make_batch(const Image* images, std::size_t count, const ModelInfo& info, const std::string& name) {
  Batch batch;
  batch.count = count;
  batch.height = images[0].height;
  batch.width = images[0].width;
  const std::size_t one = static_cast<std::size_t>(batch.height) * static_cast<std::size_t>(batch.width) * 3;
  const std::size_t all = product({count, one, sizeof(float)}, name + ": " + detail::images(count)) / sizeof(float);
  const bool floats = info.input == "float32";
  if (floats) {
    batch.floats.resize(all);
  } else {
    batch.bytes.resize(all);
  }
  for (std::size_t k = 0; k < count; ++k) {
    const std::string one_name = name_of(name, k, count);
    if (floats) {
      fill(batch.floats.data() + k * one, images[k], one_name);
    } else {
      fill(batch.bytes.data() + k * one, images[k], one_name);
    }
  }
  return batch;
}

// Checks both sides of pairs.
inline void check_pairs(const Image* reference, std::size_t references, const Image* distorted, std::size_t distorteds,
                        const ModelInfo& info) {
  // Sides that differ say more than one of them that is too small.
  if (references > 0 && distorteds > 0 && reference != nullptr && distorted != nullptr &&
      (reference->width != distorted->width || reference->height != distorted->height)) {
    throw Error(Code::shape, "reference is " + size_of(reference->width, reference->height) + ", distorted is " +
                                 size_of(distorted->width, distorted->height) +
                                 " (width x height); LPIPS compares images of one size, resize or crop one of them");
  }
  check_images(reference, references, info, "reference");
  check_images(distorted, distorteds, info, "distorted");
  if (references != distorteds) {
    throw Error(Code::shape, "reference holds " + images(references) + ", distorted " + images(distorteds) +
                                 "; pairs need as many of each, repeat or leave out some");
  }
}

}  // namespace lpips::detail
