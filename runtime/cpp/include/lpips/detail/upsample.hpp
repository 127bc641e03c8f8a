// The full-size spatial map from the depths, as torch's interpolate(mode="bilinear", align_corners=False) makes it.
// lpips_runtime/upsample.py is the same, step by step, so that both give the same floats.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lpips::detail {

// A position of the result: its two neighbours among the source's, and the second one's weight.
struct Tap {
  std::size_t first;
  std::size_t second;
  float share;
};

inline std::vector<Tap> taps(std::size_t source, std::size_t target) {
  std::vector<Tap> found(target);
  // torch rounds the scale to float, and computes with one rounding what double gives as well.
  const double scale = static_cast<double>(static_cast<float>(source) / static_cast<float>(target));
  for (std::size_t i = 0; i < target; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale - 0.5;
    const auto position = static_cast<float>(std::max(centre, 0.0));
    const std::size_t first = std::min(static_cast<std::size_t>(position), source - 1);
    found[i] = {first, std::min(first + 1, source - 1), position - static_cast<float>(first)};
  }
  return found;
}

// Adds `source` [h,w], resized, to `image` [height,width]. Rows are interpolated before columns.
inline void add_resized(float* image, std::size_t height, std::size_t width, const float* source, std::size_t h,
                        std::size_t w) {
  const std::vector<Tap> across = taps(w, width), down = taps(h, height);
  std::vector<float> rows(h * width);
  for (std::size_t y = 0; y < h; ++y) {
    for (std::size_t x = 0; x < width; ++x) {
      const float left = source[y * w + across[x].first] * (1 - across[x].share);
      const float right = source[y * w + across[x].second] * across[x].share;
      rows[y * width + x] = left + right;
    }
  }
  for (std::size_t y = 0; y < height; ++y) {
    const float* above = rows.data() + down[y].first * width;
    const float* below = rows.data() + down[y].second * width;
    const float rest = 1 - down[y].share, share = down[y].share;
    for (std::size_t x = 0; x < width; ++x) image[y * width + x] += above[x] * rest + below[x] * share;
  }
}

}  // namespace lpips::detail
