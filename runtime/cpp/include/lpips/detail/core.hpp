// What Scorer does.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "../lpips.hpp"
#include "results.hpp"
#include "split.hpp"
#include "upsample.hpp"
#include "words.hpp"

namespace lpips::detail {

// Whatever goes wrong is an Error.
template <typename Work>
auto guarded(Work work) -> decltype(work()) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(Code::memory, "not enough memory; free some, or score smaller images or batches");
  } catch (const std::length_error&) {
    throw Error(Code::memory, "more memory than there can be; score smaller images or batches");
  } catch (const std::exception& fault) {
    throw Error(Code::internal, "unexpected: " + one_line(fault.what()) + "; please report it");
  }
}

class Core {
 public:
  Core(const std::filesystem::path& path, const Options& options)
      : path_(path), setup_(checked(options)), pair_(path, setup_, "pair") {}

  const ModelInfo& info() const { return pair_.info(); }
  const std::string& version() const { return setup_.library->version(); }

  Detail detail(const Image* reference, std::size_t references, const Image* distorted, std::size_t distorteds) const {
    return run_pairs(pair_, reference, references, distorted, distorteds);
  }

  Features encode(const Image* images, std::size_t count) const {
    check_images(images, count, info(), "image");  // before the other models are opened
    Features features;
    features.encoded_ = split().encode(images, count);
    return features;
  }

  Detail compare(const Features& reference, const Features& distorted) const {
    const Encoded &a = checked(reference, "reference"), &b = checked(distorted, "distorted");
    return split().compare(a, b);
  }

 private:
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

  static const Encoded& checked(const Features& features, const std::string& name) {
    if (features.encoded_ == nullptr) {
      throw Error(Code::usage, name + ": holds no features; give what encode returned");
    }
    return *features.encoded_;
  }

  // Opened when first asked for.
  const Split& split() const {
    const std::lock_guard<std::mutex> lock(splitting_);
    if (split_ == nullptr) split_ = std::make_unique<const Split>(path_, setup_, pair_);
    return *split_;
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
inline std::string Scorer::onnxruntime_version() const {
  return detail::guarded([&] { return core_->version(); });
}

}  // namespace lpips
