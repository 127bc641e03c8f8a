#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <lpips/detail/tensor.hpp>
#include <numeric>

#include "fault.hpp"

using namespace lpips;

namespace {

ModelInfo info(const char* input = "float32") {
  ModelInfo made;
  made.net = "alex";
  made.input = input;
  made.min_size = 31;
  return made;
}

std::vector<std::uint8_t> pixels(std::size_t count) {
  std::vector<std::uint8_t> made(count);
  std::iota(made.begin(), made.end(), std::uint8_t{0});
  return made;
}

std::optional<Code> check(const Image& image, std::string* message = nullptr) {
  return code_of([&] { detail::check_images(&image, 1, info(), "image"); }, message);
}

constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();

}  // namespace

TEST_CASE("an image is taken as long as its buffer holds it, to the last byte") {
  const auto data = pixels(40 * 128);
  CHECK(check({data.data(), 40 * 32 * 3, 32, 40}) == std::nullopt);
  CHECK(check({data.data(), 40 * 32 * 3 - 1, 32, 40}) == Code::buffer);
  // The last row needs no padding.
  CHECK(check({data.data(), 39 * 100 + 96, 32, 40, Format::rgb, 100}) == std::nullopt);
  CHECK(check({data.data(), 39 * 100 + 95, 32, 40, Format::rgb, 100}) == Code::buffer);
  CHECK(check({data.data(), 40 * 32 * 4, 32, 40, Format::rgba}) == std::nullopt);
  CHECK(check({data.data(), 40 * 32 * 4 - 1, 32, 40, Format::bgrx}) == Code::buffer);
}

TEST_CASE("a null buffer, a short one and a stride smaller than a row are told apart by their words") {
  std::string message;
  const auto data = pixels(40 * 128);
  CHECK(check({static_cast<const std::uint8_t*>(nullptr), 10000, 32, 40}, &message) == Code::buffer);
  CHECK(contains(message, "null"));
  CHECK(check({data.data(), 5, 32, 40}, &message) == Code::buffer);
  CHECK(contains(message, "has 5 bytes, 32x40 needs 3840"));
  CHECK(check({data.data(), data.size(), 32, 40, Format::rgb, 95}, &message) == Code::buffer);
  CHECK(contains(message, "stride 95 is smaller than a row of 96 bytes"));
  CHECK(check({data.data(), data.size(), 32, 40, Format::rgba, 127}) == Code::buffer);
}

TEST_CASE("sides of nothing, below the smallest, or that overflow are refused") {
  std::string message;
  const auto data = pixels(40 * 128);
  CHECK(check({data.data(), data.size(), 0, 40}) == Code::shape);
  CHECK(check({data.data(), data.size(), -32, 40}) == Code::shape);
  CHECK(check({data.data(), data.size(), 30, 40}, &message) == Code::shape);
  CHECK(contains(message, "30x40"));
  CHECK(contains(message, "31x31"));
  CHECK(check({data.data(), SIZE_MAX, huge, huge}, &message) == Code::shape);
  CHECK(contains(message, "overflows"));
  CHECK(check({data.data(), SIZE_MAX, huge, 40}) == Code::shape);
  CHECK(check({data.data(), SIZE_MAX, std::int64_t{1} << 32, std::int64_t{1} << 32}) == Code::shape);
  CHECK(check({data.data(), SIZE_MAX, 32, 40, Format::rgb, SIZE_MAX}, &message) == Code::shape);
  CHECK(contains(message, "overflows"));
  CHECK(check({data.data(), data.size(), 1 << 20, 1 << 20}) == Code::buffer);  // 3 TB may be addressed
  const float one = 1;
  CHECK(check({&one, SIZE_MAX, huge, huge, Range::unit}) == Code::shape);
}

TEST_CASE("an unknown format, and a stride of planes, cannot be meant") {
  const auto data = pixels(40 * 128);
  CHECK(check({data.data(), data.size(), 32, 40, static_cast<Format>(9)}) == Code::usage);
  CHECK(check({data.data(), data.size(), 32, 40, static_cast<Format>(-1)}) == Code::usage);
  std::vector<float> planes(3 * 32 * 40, 0.5f);
  Image image(planes.data(), planes.size(), 32, 40, Range::unit);
  CHECK(check(image) == std::nullopt);
  image.stride = 4096;
  CHECK(check(image) == Code::usage);
}

TEST_CASE("every order of the channels gives the same tensor") {
  const auto rgb = pixels(40 * 32 * 3);
  const Image plain(rgb.data(), rgb.size(), 32, 40);
  for (const char* input : {"float32", "uint8"}) {
    const detail::Batch expected = detail::make_batch(&plain, 1, info(input), "image");
    for (const detail::Layout& layout : detail::layouts) {
      const std::size_t stride = 32 * layout.bytes + 5;
      std::vector<std::uint8_t> data(40 * stride, 77);
      for (std::size_t y = 0; y < 40; ++y) {
        for (std::size_t x = 0; x < 32; ++x) {
          std::uint8_t* pixel = data.data() + y * stride + x * layout.bytes;
          if (layout.bytes == 4) pixel[3] = layout.alpha < 0 ? 13 : 255;
          for (std::size_t c = 0; c < 3; ++c) pixel[layout.colours[c]] = rgb[(y * 32 + x) * 3 + c];
        }
      }
      const Image image(data.data(), data.size(), 32, 40, layout.format, stride);
      const detail::Batch found = detail::make_batch(&image, 1, info(input), "image");
      CHECK(found.floats == expected.floats);
      CHECK(found.bytes == expected.bytes);
    }
  }
}

TEST_CASE("8-bit values become v / 127.5 - 1, rounded once, in planes") {
  std::vector<std::uint8_t> data(32 * 40 * 3);
  for (std::size_t k = 0; k < data.size(); ++k) data[k] = static_cast<std::uint8_t>(k * 7 + k / 256);
  const Image image(data.data(), data.size(), 32, 40);
  const detail::Batch batch = detail::make_batch(&image, 1, info(), "image");
  for (std::size_t k = 0; k < data.size(); ++k) {
    const auto expected = static_cast<float>(static_cast<double>(data[k]) / 127.5 - 1);
    CHECK(batch.floats[k % 3 * 1280 + k / 3] == expected);
  }
}

TEST_CASE("transparent pixels are counted and refused, whatever they hide") {
  std::vector<std::uint8_t> data(32 * 40 * 4, 255);
  data[3] = 254;
  data[4 * 100 + 3] = 0;
  const Image image(data.data(), data.size(), 32, 40, Format::rgba);
  std::string message;
  CHECK(code_of([&] { detail::make_batch(&image, 1, info(), "image"); }, &message) == Code::transparent);
  CHECK(contains(message, "2 of 1280"));
}

TEST_CASE("floats must be finite and in their range") {
  std::vector<float> planes(3 * 32 * 40, 0.25f);
  const auto code = [&](float value, Range range, std::string* message = nullptr) {
    planes[100] = value;
    const Image image(planes.data(), planes.size(), 32, 40, range);
    return code_of([&] { detail::make_batch(&image, 1, info(), "image"); }, message);
  };
  CHECK(code(1, Range::unit) == std::nullopt);
  CHECK(code(0, Range::unit) == std::nullopt);
  CHECK(code(-1, Range::symmetric) == std::nullopt);
  std::string message;
  CHECK(code(-0.01f, Range::unit, &message) == Code::value);
  CHECK(contains(message, "value 100"));
  CHECK(code(1.0001f, Range::unit) == Code::value);
  CHECK(code(-1.5f, Range::symmetric) == Code::value);
  CHECK(code(255, Range::symmetric) == Code::value);
  CHECK(code(std::nanf(""), Range::unit) == Code::value);
  CHECK(code(INFINITY, Range::symmetric) == Code::value);
}

TEST_CASE("the unit range becomes the symmetric one, which stays as it is") {
  std::vector<float> planes(3 * 32 * 40, 0.75f);
  const Image unit(planes.data(), planes.size(), 32, 40, Range::unit);
  const Image symmetric(planes.data(), planes.size(), 32, 40, Range::symmetric);
  CHECK(detail::make_batch(&unit, 1, info(), "image").floats[7] == 0.5f);
  CHECK(detail::make_batch(&symmetric, 1, info(), "image").floats[7] == 0.75f);
}

TEST_CASE("a model of 8-bit pixels takes no floats") {
  std::vector<float> planes(3 * 32 * 40, 0.75f);
  const Image image(planes.data(), planes.size(), 32, 40, Range::unit);
  CHECK(code_of([&] { detail::make_batch(&image, 1, info("uint8"), "image"); }) == Code::value);
}

TEST_CASE("planes of float at an odd address are refused, not read") {
  std::vector<unsigned char> bytes(4 * 3 * 32 * 40 + 8, 0);
  Image image;
  image.data = bytes.data() + 1;
  image.bytes = bytes.size() - 1;
  image.width = 32;
  image.height = 40;
  image.format = Format::planar_unit;
  CHECK(check(image) == Code::buffer);
}

TEST_CASE("batches are of one size and of as many images") {
  const auto data = pixels(64 * 64 * 3);
  const std::vector<Image> one_size = {{data.data(), data.size(), 32, 40}, {data.data(), data.size(), 32, 40}};
  const std::vector<Image> two_sizes = {{data.data(), data.size(), 32, 40}, {data.data(), data.size(), 40, 32}};
  const auto pairs = [&](const std::vector<Image>& a, const std::vector<Image>& b, std::string* message = nullptr) {
    return code_of([&] { detail::check_pairs(a.data(), a.size(), b.data(), b.size(), info()); }, message);
  };
  std::string message;
  CHECK(pairs(one_size, one_size) == std::nullopt);
  CHECK(pairs(one_size, two_sizes, &message) == Code::shape);
  CHECK(contains(message, "distorted[1]: is 40x32, the first is 32x40"));
  CHECK(pairs({one_size[0]}, {two_sizes[1]}, &message) == Code::shape);
  CHECK(contains(message, "reference is 32x40, distorted is 40x32"));
  CHECK(pairs(one_size, {one_size[0]}) == Code::shape);
  CHECK(pairs({}, {}) == Code::shape);
  CHECK(code_of([&] { detail::check_images(nullptr, 2, info(), "image"); }) == Code::buffer);
}
