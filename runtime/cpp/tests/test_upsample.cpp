#include <doctest/doctest.h>

#include <lpips/detail/upsample.hpp>

using lpips::detail::add_resized;

// By hand: position i of the result lies at (i + 0.5) h / H - 0.5 of the source.
TEST_CASE("two positions become four as align_corners=False has it") {
  const float source[] = {0, 1};
  float row[4] = {};
  add_resized(row, 1, 4, source, 1, 2);
  CHECK(row[0] == 0.0f);
  CHECK(row[1] == 0.25f);
  CHECK(row[2] == 0.75f);
  CHECK(row[3] == 1.0f);
  float column[4] = {};
  add_resized(column, 4, 1, source, 2, 1);
  CHECK(column[1] == 0.25f);
  CHECK(column[3] == 1.0f);
}

TEST_CASE("it adds to what is there, and one position is everywhere") {
  const float source[] = {0.5f};
  std::vector<float> image(6, 1.0f);
  add_resized(image.data(), 2, 3, source, 1, 1);
  for (const float value : image) CHECK(value == 1.5f);
}

TEST_CASE("shrinking does not average over what it skips") {
  const float source[] = {0, 1, 2, 3, 4, 5, 6, 7};
  float row[2] = {};
  add_resized(row, 1, 2, source, 1, 8);
  CHECK(row[0] == 1.5f);
  CHECK(row[1] == 5.5f);
}
