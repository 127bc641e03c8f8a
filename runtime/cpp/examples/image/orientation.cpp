// The orientation of a picture, read as Pillow 13 reads it, since other programs and it disagree on broken data.
#include <algorithm>
#include <bitset>
#include <cstring>
#include <utility>

#include "parts.hpp"

namespace {

constexpr std::uint32_t orientation_tag = 0x0112;

// Bytes of a value by its type: BYTE, ASCII, SHORT, LONG, RATIONAL, ...; 0 for no type.
constexpr std::size_t sizes[] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};

// The first value of the tag's entry at `at`, with its bytes in the entry itself; 0 for what turns nothing.
std::uint32_t read_value(std::string_view tiff, std::size_t at, bool big) {
  const std::uint32_t type = number(tiff, at + 2, 2, big);
  const bool whole = type == 3 || type == 4 || type == 6 || type == 8 || type == 9 || type == 13;
  if (type == 11) throw Refused{"holds an EXIF orientation that is no whole number; write it without"};
  return whole ? number(tiff, at + 8, sizes[type], big) : 0;
}

// EXIF's orientation; nullopt without one. unreadable: it is no TIFF structure.
std::optional<std::uint32_t> exif_orientation(std::string_view tiff, bool& unreadable) {
  for (int k = 0; k < 2 && begins(tiff, exif_mark); ++k) tiff.remove_prefix(exif_mark.size());
  if (tiff.empty()) return std::nullopt;
  const std::string_view mark = tiff.substr(0, 4);
  const bool big = mark == std::string_view("MM\0*", 4) || mark == std::string_view("MM*\0", 4) ||
                   mark == std::string_view("MM\0+", 4);
  if (tiff.size() < 8 || (!big && mark != std::string_view("II*\0", 4) && mark != std::string_view("II\0*", 4))) {
    unreadable = true;
    return std::nullopt;
  }
  std::uint64_t at = number(tiff, 4, 4, big);
  if (at + 2 > tiff.size()) return std::nullopt;
  const std::uint32_t entries = number(tiff, at, 2, big);
  at += 2;
  std::bitset<65536> seen;
  std::uint64_t total = 0;
  for (std::uint32_t k = 0; k < entries && at + 12 <= tiff.size(); ++k, at += 12) {
    const std::uint32_t tag = number(tiff, at, 2, big), type = number(tiff, at + 2, 2, big);
    const std::uint64_t size = type < std::size(sizes) ? sizes[type] * std::uint64_t{number(tiff, at + 4, 4, big)} : 0;
    if (seen[tag] || size == 0) continue;
    if (size > 4) {
      total += size;
      if (total > tiff.size()) continue;
      if (number(tiff, at + 8, 4, big) + size > tiff.size()) return std::nullopt;
      if (tag == orientation_tag) throw Refused{"holds an EXIF orientation of a rare type; write it without"};
    }
    if (tag == orientation_tag) return read_value(tiff, at, big);
    seen.set(tag);
  }
  return std::nullopt;
}

std::uint32_t xmp_orientation(std::string_view xmp) {
  constexpr std::string_view word = "tiff:Orientation";
  for (std::size_t at = xmp.find(word); at != std::string_view::npos; at = xmp.find(word, at + 1)) {
    std::string_view rest = xmp.substr(at + word.size());
    if (!begins(rest, "=\"") && !begins(rest, ">")) continue;
    rest.remove_prefix(rest[0] == '=' ? 2 : 1);
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return static_cast<std::uint32_t>(rest[0] - '0');
  }
  return 0;
}

}  // namespace

int orientation(const Found& found, bool& unreadable) {
  std::optional<std::uint32_t> value;
  if (found.exif) value = exif_orientation(*found.exif, unreadable);
  if (!value && !unreadable && found.xmp) value = xmp_orientation(*found.xmp);
  return value && *value >= 1 && *value <= 8 ? static_cast<int>(*value) : 1;
}

void make_upright(Picture& picture, int turned) {
  if (turned == 1) return;
  const int w = picture.width, h = picture.height;
  // EXIF's eight orientations are these three, of the picture as it lies in the file.
  const bool transposed = turned >= 5;
  const bool mirrored = turned == 2 || turned == 3 || turned == 7 || turned == 8;
  const bool flipped = turned == 3 || turned == 4 || turned == 6 || turned == 7;
  Picture upright = picture;
  if (transposed) std::swap(upright.width, upright.height);
  for (int y = 0; y < upright.height; ++y) {
    for (int x = 0; x < upright.width; ++x) {
      const int along = transposed ? y : x, down = transposed ? x : y;
      const int from_x = mirrored ? w - 1 - along : along, from_y = flipped ? h - 1 - down : down;
      const auto to = static_cast<std::size_t>(y) * static_cast<std::size_t>(upright.width) + static_cast<std::size_t>(x);
      const auto from = static_cast<std::size_t>(from_y) * static_cast<std::size_t>(w) + static_cast<std::size_t>(from_x);
      std::memcpy(upright.pixels.data() + 3 * to, picture.pixels.data() + 3 * from, 3);
    }
  }
  picture = std::move(upright);
}
