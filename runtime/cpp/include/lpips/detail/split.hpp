// Encode once, compare often: the two graphs that `lpips-export --split` writes beside a pair graph.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "results.hpp"

namespace lpips::detail {

// What Features share. parts: of each image, the features of each depth, [1, C_k, h_k, w_k].
struct Encoded {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::string made_by;  // seal of the model, its provider and ONNX Runtime
  std::vector<std::vector<Tensor>> parts{};
};

// Features compared in one run, in values of float: larger blocks leave the processor's caches.
inline constexpr std::size_t compared_values = std::size_t{1} << 18;

// The largest relative difference between a pair graph and its siblings on one INT8 pair: rounding is far below it,
// another calibration above.
inline constexpr float same_int8 = 1e-3f;

class Split {
 public:
  // Those beside `path`, the file of `pair`. Error if they are missing, or are of another export.
  Split(const std::filesystem::path& path, const Setup& setup, const Graph& pair)
      : name_(shown(path.filename())),
        features_(beside(path, "features"), setup, "features"),
        compare_(beside(path, "compare"), setup, "compare"),
        made_by_(features_.info().content_sha256 + " " + setup.provider.shown() + " " + setup.library->version()) {
    check_belongs(features_, pair);
    check_belongs(compare_, pair);
    if (pair.info().precision == "int8") check_numbers(pair);
  }

  // Image by image, so that the features of one depend on nothing else.
  std::shared_ptr<const Encoded> encode(const Image* images, std::size_t count) const {
    check_images(images, count, features_.info(), "image");
    auto made = std::make_shared<Encoded>();
    made->height = images[0].height;
    made->width = images[0].width;
    made->made_by = made_by_;
    for (std::size_t k = 0; k < count; ++k) {
      const Batch batch = make_batch(images + k, 1, features_.info(), name_of("image", k, count));
      made->parts.push_back(features_.run({input_of(batch, "image")}, feature_names(features_.depths())));
    }
    return made;
  }

  Detail compare(const Encoded& reference, const Encoded& distorted) const {
    if (reference.made_by != made_by_ || distorted.made_by != made_by_) {
      throw Error(Code::foreign_features,
                  std::string(reference.made_by != made_by_ ? "reference" : "distorted") +
                      ": features of another model, provider or ONNX Runtime; encode the images as they are compared");
    }
    if (reference.height != distorted.height || reference.width != distorted.width) {
      throw Error(Code::shape, "features of images of " + size_of(reference.width, reference.height) + " and " +
                                   size_of(distorted.width, distorted.height) +
                                   " (width x height); LPIPS compares images of one size, resize or crop one of them");
    }
    const std::size_t count = distorted.parts.size();
    if (reference.parts.size() != 1 && reference.parts.size() != count) {
      throw Error(Code::shape, "reference holds features of " + images(reference.parts.size()) + ", distorted of " +
                                   std::to_string(count) + "; give as many of each, or one reference");
    }
    std::size_t values = 0;
    for (const Tensor& depth : distorted.parts[0]) values += depth.values.size();
    const std::size_t block = std::max<std::size_t>(1, compared_values / std::max<std::size_t>(1, values));
    Detail all;
    for (std::size_t first = 0; first < count; first += block) {
      const std::size_t last = std::min(count, first + block);
      append(all, compare(reference, distorted, first, last));
    }
    return all;
  }

 private:
  static std::filesystem::path beside(const std::filesystem::path& pair, const std::string& kind) {
    std::filesystem::path name = pair.stem();
    name += "_" + kind;
    name += pair.extension();
    std::filesystem::path found = pair;
    found.replace_filename(name);
    std::error_code fault;
    if (!std::filesystem::exists(found, fault)) {
      throw Error(Code::model_not_found, shown(found) + ": no such model, the '" + kind + "' graph of " +
                                             shown(pair.filename()) +
                                             " is needed to encode and compare; export with lpips-export --split");
    }
    return found;
  }

  Detail compare(const Encoded& reference, const Encoded& distorted, std::size_t first, std::size_t last) const {
    std::vector<Input> inputs;
    std::vector<Tensor> stacks;
    const std::size_t depths = compare_.depths();
    stacks.reserve(2 * depths);  // inputs point into them
    for (const char* name : {"reference", "distorted"}) {
      const bool is_reference = std::string(name) == "reference";
      const Encoded* side = is_reference ? &reference : &distorted;
      const bool one = is_reference && side->parts.size() == 1;
      const std::size_t begin = one ? 0 : first, end = one ? 1 : last;
      const std::vector<std::string> names = feature_names(depths, name);
      for (std::size_t k = 0; k < depths; ++k) {
        const Tensor* tensor = &side->parts[begin][k];
        if (end - begin > 1) {
          Tensor stack;
          stack.shape = tensor->shape;
          stack.shape[0] = static_cast<std::int64_t>(end - begin);
          for (std::size_t n = begin; n < end; ++n) {
            const std::vector<float>& from = side->parts[n][k].values;
            stack.values.insert(stack.values.end(), from.begin(), from.end());
          }
          stacks.push_back(std::move(stack));
          tensor = &stacks.back();
        }
        inputs.push_back(floats_of(names[k], tensor->values, tensor->shape));
      }
    }
    return detail_of(compare_, compare_.run(inputs, result_names(depths)), last - first, distorted.height,
                     distorted.width);
  }

  void check_belongs(const Graph& graph, const Graph& pair) const {
    const auto found = contract::told(graph.info()), expected = contract::told(pair.info());
    for (std::size_t k = 0; k < expected.size(); ++k) {
      const auto& [key, value] = expected[k];
      if (key == "kind" || key == "content_sha256" || found[k].second == value) continue;
      throw Error(Code::foreign_model, graph.path() + ": does not belong to " + name_ + ", its " + key + " is " +
                                           one_line(found[k].second, 70) + ", not " + one_line(value, 70) +
                                           "; export them together with lpips-export --split --overwrite");
    }
  }

  // Two INT8 graphs of other calibrations say the same of themselves, and would give other distances.
  void check_numbers(const Graph& pair) const {
    constexpr std::int64_t side = 2 * probe_side;
    std::vector<std::uint8_t> pixels[2];
    std::uint32_t state = 1;
    for (std::vector<std::uint8_t>& image : pixels) {
      image.resize(static_cast<std::size_t>(side * side) * 3);
      for (std::uint8_t& value : image) {
        state = state * 1664525u + 1013904223u;
        value = static_cast<std::uint8_t>(state >> 24);
      }
    }
    const Image a(pixels[0].data(), pixels[0].size(), side, side), b(pixels[1].data(), pixels[1].size(), side, side);
    const float expected = run_pairs(pair, &a, 1, &b, 1).distance[0];
    const float found = compare(*encode(&a, 1), *encode(&b, 1)).distance[0];
    if (!(std::abs(found - expected) <= same_int8 * std::abs(expected))) {
      throw Error(Code::foreign_model, features_.path() + ": gives " + std::to_string(found) + " where " +
                                           name_ + " gives " + std::to_string(expected) +
                                           ", as one of another calibration would; export them together with "
                                           "lpips-export --split --overwrite");
    }
  }

  std::string name_;
  Graph features_;
  Graph compare_;
  std::string made_by_;
};

}  // namespace lpips::detail
