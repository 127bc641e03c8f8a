// LPIPS between images, by a model that lpips-export wrote: 0 for equal images, larger the more they differ to a person.
//
//   lpips::Scorer scorer("lpips_alex_fp32.onnx");
//   float distance = scorer.score({a.data(), a.size(), width, height}, {b.data(), b.size(), width, height});
//
// Header-only C++17. Needs ONNX Runtime's C headers to compile, and its library, 1.18 or newer, when it runs: that is
// loaded then, so one binary works with every release from 1.18 on and is linked against none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "error.hpp"
#include "image.hpp"
#include "model_info.hpp"

namespace lpips {

namespace detail {
class Core;  // what a Scorer shares
struct Encoded;  // what Features share
}  // namespace detail

struct Options {
  // ONNX Runtime's library. Empty: $LPIPS_ONNXRUNTIME, then the system's libonnxruntime.
  std::filesystem::path onnxruntime{};
  // cpu, cuda, or one of its devices, cuda:1. Float32 stays float32 on each; nothing else takes over in silence.
  std::string provider = "cpu";
  // Threads that compute on the CPU, 1 to 1024. 0: the cores that this process may use.
  int threads = 0;
  // For a process that scores one pair and ends: the model opens in less time, later runs take up to 1.4 times theirs.
  // Changes nothing for fp16 models.
  bool quick_start = false;
};

// The weighted squared differences of N pairs at one depth, row by row, at that depth's own resolution.
struct Depth {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::vector<float> values{};  // [N, height, width]
};

// All that one call says of N pairs.
struct Detail {
  std::vector<float> distance{};  // [N]
  std::vector<float> layers{};    // [N, L], each depth's share; those of a pair sum to its distance
  std::vector<Depth> depths{};    // L of them
  std::int64_t height = 0;        // of the images
  std::int64_t width = 0;

  // The spatial map [N, height, width]: the depths, each upsampled (bilinear, align_corners=False), and summed. Its mean
  // is near the distance, not equal to it.
  std::vector<float> map() const;
};

// Images, encoded once to be compared often. A cheap copy shares the memory.
class Features {
 public:
  Features() = default;

  std::size_t count() const noexcept;
  std::int64_t height() const noexcept;  // of the images
  std::int64_t width() const noexcept;

 private:
  friend class detail::Core;
  std::shared_ptr<const detail::Encoded> encoded_{};
};

// An opened model. Const members may be called from many threads at once; copies share the model.
//
// Batches are images of one size, as many of reference as of distorted, and a pair has the same distance in any of them
// but for rounding. Every fault is an Error, thrown before ONNX Runtime sees the images where it is theirs.
class Scorer {
 public:
  // Only .onnx files of lpips-export; Error with Code::foreign_model for everything else.
  explicit Scorer(const std::filesystem::path& model, const Options& options = {});

  // A move is a copy, which is cheap: no Scorer is without its model.
  Scorer(const Scorer&) = default;
  Scorer& operator=(const Scorer&) = default;

  float score(const Image& reference, const Image& distorted) const;
  std::vector<float> score(const std::vector<Image>& reference, const std::vector<Image>& distorted) const;

  Detail detail(const Image& reference, const Image& distorted) const;
  Detail detail(const std::vector<Image>& reference, const std::vector<Image>& distorted) const;

  // Needs the two models that `lpips-export --split` writes beside the first; they are opened when first asked for.
  Features encode(const Image& image) const;
  Features encode(const std::vector<Image>& images) const;

  // What `detail` says of the images, without computing their features anew. One reference stands for all, or there
  // are as many as distorted.
  Detail compare(const Features& reference, const Features& distorted) const;

  const ModelInfo& info() const noexcept;
  std::string onnxruntime_version() const;

 private:
  std::shared_ptr<detail::Core> core_;
};

}  // namespace lpips

#include "detail/core.hpp"
