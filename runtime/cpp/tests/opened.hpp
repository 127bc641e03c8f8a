// Models and images for tests.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <lpips/lpips.hpp>
#include <string>
#include <vector>

inline std::filesystem::path model(const std::string& name) {
  return std::filesystem::path(std::getenv("LPIPS_TEST_MODELS")) / (name + ".onnx");
}

// Noise, the same for the same seed.
struct Picture {
  std::int64_t width;
  std::int64_t height;
  std::vector<std::uint8_t> pixels;

  explicit Picture(std::uint32_t seed, std::int64_t columns = 48, std::int64_t rows = 40)
      : width(columns), height(rows), pixels(static_cast<std::size_t>(columns * rows * 3)) {
    std::uint32_t state = seed * 2654435761u + 1;
    for (std::uint8_t& value : pixels) {
      state = state * 1664525u + 1013904223u;
      value = static_cast<std::uint8_t>(state >> 24);
    }
  }

  lpips::Image view() const { return {pixels.data(), pixels.size(), width, height}; }
};
