// What Scorer does.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../lpips.hpp"
#include "graph.hpp"
#include "tensor.hpp"
#include "upsample.hpp"

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

// Where there is no memory for something, an Error as for everything else.
template <typename Work>
auto guarded(Work work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    throw Error(Code::memory, "not enough memory; free some, or score smaller images or batches");
  } catch (const std::length_error&) {
    throw Error(Code::memory, "more memory than there can be; score smaller images or batches");
  }
}

class Core {
 public:
  Core(const std::filesystem::path& path, const Options& options)
      : path_(path), setup_(checked(options)), pair_(path, setup_, "pair") {}

  const ModelInfo& info() const { return pair_.info(); }
  const std::string& version() const { return setup_.library->version(); }

  Detail detail(const Image* reference, std::size_t references, const Image* distorted, std::size_t distorteds) const {
    check_pairs(reference, references, distorted, distorteds, info());
    const Batch a = make_batch(reference, references, info(), "reference");
    const Batch b = make_batch(distorted, distorteds, info(), "distorted");
    return detail_of(pair_, pair_.run({input(a, "reference"), input(b, "distorted")}, result_names(pair_.depths())), a.count,
                     a.height, a.width);
  }

  Features encode(const Image* images, std::size_t count) const {
    check_images(images, count, info(), "image");
    return encoded(images, count, split());
  }

  Detail compare(const Features& reference, const Features& distorted) const {
    return compared(checked(reference, "reference"), checked(distorted, "distorted"), split());
  }

 private:
  // The graphs that --split writes beside the pair graph.
  struct Split {
    Graph features;
    Graph compare;
    std::string made_by;
  };

  static Setup checked(const Options& options) {
    if (options.threads < 0 || options.threads > 1024) {
      throw Error(Code::usage, "threads is " + std::to_string(options.threads) +
                                   "; give 1 to 1024, or 0 for the cores that this process may use");
    }
    Setup setup;
    setup.provider = parse_provider(options.provider);
    setup.threads = options.threads;
    setup.quick_start = options.quick_start;
    setup.library = std::make_shared<const Library>(options.onnxruntime);
    return setup;
  }

  static Input input(const Batch& batch, const char* name) {
    const auto count = static_cast<std::int64_t>(batch.count);
    if (batch.bytes.empty()) return floats_of(name, batch.floats, {count, 3, batch.height, batch.width});
    return {name, batch.bytes.data(), batch.bytes.size(), {count, batch.height, batch.width, 3}, uint8_type};
  }

  // Distance and layers are the means of the depths, in double: those of the graph are summed in an order that depends on
  // the size of the batch. Error for numbers that no intact model gives.
  static Detail detail_of(const Graph& graph, std::vector<Tensor> outputs, std::size_t count, std::int64_t height,
                          std::int64_t width) {
    const std::size_t depths = graph.depths();
    const auto refuse = [&](const std::string& what) {
      throw Error(Code::damaged_model,
                  graph.path() + ": gives " + what + ", as no intact model does; export the model again");
    };
    if (outputs[0].values.size() != count || outputs[1].values.size() != count * depths) {
      refuse("numbers of another count than its pairs");
    }
    Detail found;
    found.height = height;
    found.width = width;
    found.distance.resize(count);
    found.layers.resize(count * depths);
    std::vector<double> sums(count, 0.0);
    for (std::size_t k = 0; k < depths; ++k) {
      Tensor& depth = outputs[2 + k];
      if (depth.shape.size() != 3 || depth.shape[0] != static_cast<std::int64_t>(count) || depth.values.empty()) {
        refuse("maps of another count than its pairs");
      }
      const std::size_t one = depth.values.size() / count;
      for (std::size_t n = 0; n < count; ++n) {
        double sum = 0;
        for (std::size_t at = n * one; at < (n + 1) * one; ++at) sum += static_cast<double>(depth.values[at]);
        const double share = sum / static_cast<double>(one);
        found.layers[n * depths + k] = static_cast<float>(share);
        sums[n] += share;
      }
      found.depths.push_back({depth.shape[1], depth.shape[2], std::move(depth.values)});
    }
    for (std::size_t n = 0; n < count; ++n) {
      found.distance[n] = static_cast<float>(sums[n]);
      if (!std::isfinite(found.distance[n]) || !std::isfinite(outputs[0].values[n])) refuse("values that are not finite");
      if (found.distance[n] < 0) refuse("a distance of " + std::to_string(found.distance[n]));
    }
    return found;
  }

  // Image by image, so that its features depend on nothing else.
  static Features encoded(const Image* images, std::size_t count, const Split& split) {
    auto made = std::make_shared<Encoded>();
    made->height = images[0].height;
    made->width = images[0].width;
    made->made_by = split.made_by;
    for (std::size_t k = 0; k < count; ++k) {
      const Batch batch = make_batch(images + k, 1, split.features.info(), name_of("image", k, count));
      made->parts.push_back(split.features.run({input(batch, "image")}, feature_names(split.features.depths())));
    }
    Features features;
    features.encoded_ = std::move(made);
    return features;
  }

  static const Encoded& checked(const Features& features, const std::string& name) {
    if (features.encoded_ == nullptr) {
      throw Error(Code::usage, name + ": holds no features; give what encode returned");
    }
    return *features.encoded_;
  }

  static Detail compared(const Encoded& reference, const Encoded& distorted, const Split& split) {
    if (reference.made_by != split.made_by || distorted.made_by != split.made_by) {
      throw Error(Code::foreign_features,
                  std::string(reference.made_by != split.made_by ? "reference" : "distorted") +
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
      append(all, compared(reference, distorted, first, last, split));
    }
    return all;
  }

  static Detail compared(const Encoded& reference, const Encoded& distorted, std::size_t first, std::size_t last,
                         const Split& split) {
    std::vector<Input> inputs;
    std::vector<Tensor> stacks;
    const std::size_t depths = split.compare.depths();
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
    return detail_of(split.compare, split.compare.run(inputs, result_names(depths)), last - first, distorted.height,
                     distorted.width);
  }

  static void append(Detail& all, Detail more) {
    if (all.distance.empty()) {
      all = std::move(more);
      return;
    }
    const auto add = [](std::vector<float>& to, const std::vector<float>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    add(all.distance, more.distance);
    add(all.layers, more.layers);
    for (std::size_t k = 0; k < all.depths.size(); ++k) add(all.depths[k].values, more.depths[k].values);
  }

  const Split& split() const {
    const std::lock_guard<std::mutex> lock(splitting_);
    if (split_ == nullptr) split_ = opened();
    return *split_;
  }

  std::unique_ptr<const Split> opened() const {
    const auto beside = [&](const std::string& kind) {
      std::filesystem::path name = path_.stem();
      name += "_" + kind;
      name += path_.extension();
      std::filesystem::path found = path_;
      found.replace_filename(name);
      std::error_code fault;
      if (!std::filesystem::exists(found, fault)) {
        throw Error(Code::model_not_found, shown(found) + ": no such model, the '" + kind + "' graph of " +
                                               shown(path_.filename()) +
                                               " is needed to encode and compare; export with lpips-export --split");
      }
      return found;
    };
    const std::filesystem::path features = beside("features"), compare = beside("compare");
    auto split = std::unique_ptr<Split>(
        new Split{Graph(features, setup_, "features"), Graph(compare, setup_, "compare"), std::string()});
    check_belongs(split->features);
    check_belongs(split->compare);
    split->made_by = split->features.info().content_sha256 + " " + setup_.provider.shown() + " " + version();
    if (info().precision == "int8") check_numbers(*split);
    return split;
  }

  void check_belongs(const Graph& graph) const {
    const auto refuse = [&](const std::string& key, const std::string& found, const std::string& expected) {
      throw Error(Code::foreign_model, graph.path() + ": does not belong to " + shown(path_.filename()) + ", its " + key +
                                           " is " + one_line(found, 70) + ", not " + one_line(expected, 70) +
                                           "; export them together with lpips-export --split --overwrite");
    };
    for (const contract::Text& row : contract::texts()) {
      const std::string key = row.key;
      if (key == "kind" || key == "content_sha256") continue;
      if (graph.info().*row.field != info().*row.field) refuse(key, graph.info().*row.field, info().*row.field);
    }
    for (const contract::Number& row : contract::numbers) {
      const int found = graph.info().*row.field, expected = info().*row.field;
      if (found != expected) refuse(row.key, std::to_string(found), std::to_string(expected));
    }
  }

  // Two INT8 graphs of other calibrations say the same of themselves, and would give other distances.
  void check_numbers(const Split& split) const {
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
    const float expected = detail(&a, 1, &b, 1).distance[0];
    const float found =
        compared(*encoded(&a, 1, split).encoded_, *encoded(&b, 1, split).encoded_, split).distance[0];
    if (!(std::abs(found - expected) <= same_int8 * std::abs(expected))) {
      throw Error(Code::foreign_model, split.features.path() + ": gives " + std::to_string(found) + " where " +
                                           shown(path_.filename()) + " gives " + std::to_string(expected) +
                                           ", as one of another calibration would; export them together with "
                                           "lpips-export --split --overwrite");
    }
  }

  std::filesystem::path path_;
  Setup setup_;
  Graph pair_;
  mutable std::mutex splitting_;
  mutable std::unique_ptr<const Split> split_;
};

}  // namespace lpips::detail

namespace lpips {

inline std::vector<float> Detail::map() const {
  return detail::guarded([&] {
    const auto rows = static_cast<std::size_t>(height), columns = static_cast<std::size_t>(width);
    const std::size_t one = rows * columns;
    std::vector<float> total(distance.size() * one, 0.0f);
    for (const Depth& depth : depths) {
      const auto h = static_cast<std::size_t>(depth.height), w = static_cast<std::size_t>(depth.width);
      for (std::size_t n = 0; n < distance.size(); ++n) {
        detail::add_resized(total.data() + n * one, rows, columns, depth.values.data() + n * h * w, h, w);
      }
    }
    return total;
  });
}

inline std::size_t Features::count() const noexcept { return encoded_ == nullptr ? 0 : encoded_->parts.size(); }
inline std::int64_t Features::height() const noexcept { return encoded_ == nullptr ? 0 : encoded_->height; }
inline std::int64_t Features::width() const noexcept { return encoded_ == nullptr ? 0 : encoded_->width; }

inline Scorer::Scorer(const std::filesystem::path& model, const Options& options)
    : core_(detail::guarded([&] { return std::make_shared<detail::Core>(model, options); })) {}

inline Detail Scorer::detail(const Image& reference, const Image& distorted) const {
  return detail::guarded([&] { return core_->detail(&reference, 1, &distorted, 1); });
}

inline Detail Scorer::detail(const std::vector<Image>& reference, const std::vector<Image>& distorted) const {
  return detail::guarded(
      [&] { return core_->detail(reference.data(), reference.size(), distorted.data(), distorted.size()); });
}

inline float Scorer::score(const Image& reference, const Image& distorted) const {
  return detail(reference, distorted).distance[0];
}

inline std::vector<float> Scorer::score(const std::vector<Image>& reference,
                                        const std::vector<Image>& distorted) const {
  return detail(reference, distorted).distance;
}

inline Features Scorer::encode(const Image& image) const {
  return detail::guarded([&] { return core_->encode(&image, 1); });
}

inline Features Scorer::encode(const std::vector<Image>& images) const {
  return detail::guarded([&] { return core_->encode(images.data(), images.size()); });
}

inline Detail Scorer::compare(const Features& reference, const Features& distorted) const {
  return detail::guarded([&] { return core_->compare(reference, distorted); });
}

inline const ModelInfo& Scorer::info() const noexcept { return core_->info(); }
inline std::string Scorer::onnxruntime_version() const { return core_->version(); }

}  // namespace lpips
