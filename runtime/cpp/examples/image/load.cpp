#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>

#include "decoder.hpp"
#include "parts.hpp"

namespace {

constexpr std::uintmax_t most_bytes = std::uintmax_t{1} << 31;

const std::map<std::string, std::string> texts = {
    {"gray16", "16-bit gray is rounded to 8 bits"},
    {"rgb16", "16-bit colour is cut to its high 8 bits"},
    {"icc", "the ICC colour profile is ignored, values are taken as sRGB"},
    {"mpo", "of a multi-picture JPEG the primary picture is used"},
    {"exif", "unreadable EXIF data is ignored, and with it any rotation"},
};

std::string read_file(const std::string& name) {
  namespace fs = std::filesystem;
  std::error_code fault;
  const fs::file_status status = fs::status(name, fault);
  if (status.type() == fs::file_type::not_found) throw Refused{"no such file; check the path"};
  if (fault) throw Refused{"cannot be read (" + fault.message() + ")"};
  if (fs::is_directory(status)) throw Refused{"is a folder, an image file is needed"};
  if (!fs::is_regular_file(status)) throw Refused{"is a pipe, socket or device; save the image as a file first"};
  const std::uintmax_t size = fs::file_size(name, fault);
  if (fault) throw Refused{"cannot be read (" + fault.message() + ")"};
  if (size == 0) throw Refused{"is empty (0 bytes); write it again"};
  if (size >= most_bytes) {
    throw Refused{"is " + with_commas(size) + " bytes large, the limit is " + with_commas(most_bytes) + "; cut it first"};
  }
  errno = 0;
  std::ifstream file(name, std::ios::binary);
  if (!file && errno == EACCES) throw Refused{"permission denied; make the file readable"};
  std::string data(static_cast<std::size_t>(size), '\0');
  if (!file || !file.read(data.data(), static_cast<std::streamsize>(data.size()))) {
    throw Refused{"cannot be read (" + std::string(std::strerror(errno)) + ")"};
  }
  return data;
}

// `narrow` of each sample -> RGB. An alpha must be opaque.
template <typename Sample, typename Narrow>
void take(Picture& picture, const Samples<Sample>& samples, Narrow narrow, const char* beyond_palette) {
  picture.width = samples.width;
  picture.height = samples.height;
  const std::size_t count = static_cast<std::size_t>(picture.width) * static_cast<std::size_t>(picture.height);
  const auto step = static_cast<std::size_t>(samples.channels);
  const bool gray = samples.channels < 3, alpha = samples.channels % 2 == 0;
  picture.pixels.resize(3 * count);
  std::size_t transparent = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const Sample* pixel = samples.values.get() + k * step;
    for (std::size_t c = 0; c < 3; ++c) picture.pixels[3 * k + c] = narrow(pixel[gray ? 0 : c]);
    if (alpha) transparent += narrow(pixel[step - 1]) < 255;
  }
  if (transparent == 0) return;
  if (beyond_palette != nullptr) damaged("PNG", beyond_palette);
  throw Refused{with_commas(transparent) + " of " + with_commas(count) +
                " pixels are transparent, and LPIPS is defined on opaque ones; put them over a background first"};
}

std::uint8_t unchanged(std::uint8_t value) { return value; }

void load_png(std::string_view data, Picture& picture, Found& found, std::int64_t limit) {
  const Png png = walk_png(data, found, limit);
  std::string rewritten;
  if (png.colour == 3) data = rewritten = with_whole_palette(png);
  if (png.depth == 16) {
    const bool gray = png.colour == 0;
    const char* note = gray ? "gray16" : "rgb16";
    picture.notes[note] = texts.at(note);
    const auto narrow = [gray](unsigned value) {
      return static_cast<std::uint8_t>(gray ? (value + 128) / 257 : value >> 8);
    };
    take(picture, decode_16(data, 0, "PNG"), narrow, nullptr);
    return;
  }
  const bool whole = png.colour == 3 && !png.transparent;
  take(picture, decode_8(data, 0, "PNG"), unchanged, whole ? "a pixel beyond the palette" : nullptr);
}

Picture decode(std::string_view data, std::int64_t limit) {
  Picture picture;
  Found found;
  if (begins(data, "\x89PNG\r\n\x1a\n")) {
    load_png(data, picture, found, limit);
  } else if (begins(data, "\xff\xd8\xff")) {
    walk_jpeg(data, found, limit);
    take(picture, decode_8(data, 3, "JPEG"), unchanged, nullptr);
  } else {
    throw Refused{"not a PNG or JPEG image; convert it to one of them"};
  }
  bool unreadable = false;
  const int turned = orientation(found, unreadable);
  if (unreadable) picture.notes["exif"] = texts.at("exif");
  if (found.icc) picture.notes["icc"] = texts.at("icc");
  if (found.mpo) picture.notes["mpo"] = texts.at("mpo");
  make_upright(picture, turned);
  return picture;
}

// What is wrong with a file, under its name.
template <typename Get>
Picture named(const std::string& name, Get get) {
  try {
    return get();
  } catch (const Refused& refused) {
    throw ImageError(name + ": " + refused.what);
  } catch (const std::bad_alloc&) {
    throw ImageError(name + ": does not fit into memory when decoded; scale it down or cut it first");
  }
}

}  // namespace

Picture load_image(const std::string& name) {
  return named(name, [&] { return decode(read_file(name), most_pixels); });
}

Picture decode_image(std::string_view data, const std::string& name, std::int64_t limit) {
  return named(name, [&] { return decode(data, limit); });
}
