#include "image_file.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>

// stb decodes, and is lenient: it checks no checksum, takes what is cut off for zeros, turns CMYK and animations into some
// RGB, and knows no EXIF. So what a file holds is looked at here first.
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#endif
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#include <stb/stb_image.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace {

// Pillow's limit.
constexpr std::int64_t most_pixels = 178'956'970;
constexpr std::uintmax_t most_bytes = std::uintmax_t{1} << 31;
// Each scan costs time for every pixel but may be some bytes long; encoders write about ten.
constexpr int most_scans = 100;

const std::map<std::string, std::string> texts = {
    {"gray16", "16-bit gray is rounded to 8 bits"},
    {"rgb16", "16-bit colour is cut to its high 8 bits"},
    {"icc", "the ICC colour profile is ignored, values are taken as sRGB"},
    {"mpo", "of a multi-picture JPEG the primary picture is used"},
    {"exif", "unreadable EXIF data is ignored, and with it any rotation"},
};

// What is said of a file: its name goes before.
struct Refused {
  std::string what;
};

[[noreturn]] void damaged(const char* kind, const std::string& reason) {
  throw Refused{std::string("a damaged or truncated ") + kind + " (" + reason + "); write it again"};
}

std::string with_commas(std::size_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

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

std::uint32_t number(std::string_view data, std::size_t at, std::size_t bytes, bool big = true) {
  std::uint32_t value = 0;
  for (std::size_t k = 0; k < bytes; ++k) {
    const auto byte = static_cast<unsigned char>(data[big ? at + k : at + bytes - 1 - k]);
    value = value << 8 | byte;
  }
  return value;
}

bool begins(std::string_view data, std::string_view with) { return data.substr(0, with.size()) == with; }

// What else of a file decides its pixels, gathered while it is walked through.
struct Found {
  std::optional<std::string_view> exif{};  // a TIFF structure
  std::string_view xmp{};
  bool icc = false;
  bool mpo = false;
};

// The orientation in a TIFF structure; 0 if it has none. nullopt for what cannot be read.
std::optional<std::uint32_t> exif_orientation(std::string_view tiff) {
  if (tiff.size() < 8) return std::nullopt;
  const bool big = begins(tiff, std::string_view("MM\0*", 4));
  if (!big && !begins(tiff, std::string_view("II*\0", 4))) return std::nullopt;
  const std::size_t start = number(tiff, 4, 4, big);
  if (start > tiff.size() - 2) return std::nullopt;
  const std::size_t entries = number(tiff, start, 2, big);
  for (std::size_t k = 0; k < entries; ++k) {
    const std::size_t at = start + 2 + 12 * k;
    if (at + 12 > tiff.size()) return std::nullopt;
    if (number(tiff, at, 2, big) != 0x0112) continue;
    return number(tiff, at + 8, 2, big);
  }
  return 0;
}

// 1 to 8: EXIF's where it has one, else that of XMP.
int orientation(const Found& found, Picture& picture) {
  std::uint32_t value = 0;
  if (found.exif) {
    const std::optional<std::uint32_t> read = exif_orientation(*found.exif);
    if (!read) picture.notes["exif"] = texts.at("exif");
    value = read.value_or(0);
  }
  if (value == 0) {
    constexpr std::string_view word = "tiff:Orientation";
    const std::size_t at = found.xmp.find(word);
    if (at != std::string_view::npos) {
      const std::string_view rest = found.xmp.substr(at + word.size(), 3);
      const std::size_t digit = begins(rest, "=\"") ? 2 : 1;
      if ((begins(rest, "=\"") || begins(rest, ">")) && rest.size() > digit && rest[digit] >= '0' && rest[digit] <= '9') {
        value = static_cast<std::uint32_t>(rest[digit] - '0');
      }
    }
  }
  return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
}

void make_upright(Picture& picture, int turned) {
  if (turned == 1) return;
  const int w = picture.width, h = picture.height;
  Picture upright = picture;
  if (turned >= 5) std::swap(upright.width, upright.height);
  for (int y = 0; y < upright.height; ++y) {
    for (int x = 0; x < upright.width; ++x) {
      int from_x = x, from_y = y;
      switch (turned) {
        case 2:
          from_x = w - 1 - x;
          break;
        case 3:
          from_x = w - 1 - x;
          from_y = h - 1 - y;
          break;
        case 4:
          from_y = h - 1 - y;
          break;
        case 5:
          from_x = y;
          from_y = x;
          break;
        case 6:
          from_x = y;
          from_y = h - 1 - x;
          break;
        case 7:
          from_x = w - 1 - y;
          from_y = h - 1 - x;
          break;
        default:
          from_x = w - 1 - y;
          from_y = x;
          break;
      }
      const auto to = static_cast<std::size_t>(y) * static_cast<std::size_t>(upright.width) + static_cast<std::size_t>(x);
      const auto from = static_cast<std::size_t>(from_y) * static_cast<std::size_t>(w) + static_cast<std::size_t>(from_x);
      std::memcpy(upright.pixels.data() + 3 * to, picture.pixels.data() + 3 * from, 3);
    }
  }
  picture = std::move(upright);
}

struct Freed {
  void operator()(void* memory) const { stbi_image_free(memory); }
};

void check_pixels(std::int64_t width, std::int64_t height) {
  if (width * height > most_pixels) {
    throw Refused{std::to_string(width) + "x" + std::to_string(height) + " exceeds " +
                  with_commas(static_cast<std::size_t>(most_pixels)) + " pixels; scale it down or cut it first"};
  }
}

// Samples of stb's, `channels` a pixel -> RGB, by `narrow` of each. Its alpha must be opaque.
template <typename Sample, typename Narrow>
void take(Picture& picture, const Sample* samples, int channels, Narrow narrow, const char* beyond_palette) {
  const std::size_t count = static_cast<std::size_t>(picture.width) * static_cast<std::size_t>(picture.height);
  const auto step = static_cast<std::size_t>(channels);
  const bool gray = channels < 3, alpha = channels % 2 == 0;
  picture.pixels.resize(3 * count);
  std::size_t transparent = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const Sample* pixel = samples + k * step;
    for (std::size_t c = 0; c < 3; ++c) picture.pixels[3 * k + c] = narrow(pixel[gray ? 0 : c]);
    if (alpha) transparent += narrow(pixel[step - 1]) < 255;
  }
  if (transparent == 0) return;
  if (beyond_palette != nullptr) damaged("PNG", beyond_palette);
  throw Refused{with_commas(transparent) + " of " + with_commas(count) +
                " pixels are transparent, and LPIPS is defined on opaque ones; put them over a background first"};
}

struct Png {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  int depth = 0;
  int colour = 0;  // 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGB and alpha
  bool transparent = false;
  std::string palette{};
  std::string palette_alpha{};
  std::string image_data{};  // of a palette: its IDAT chunks, as they are in the file
  std::string_view header{};
};

std::uint32_t crc32(std::string_view data) {
  static const std::array<std::uint32_t, 256> table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t n = 0; n < 256; ++n) {
      std::uint32_t c = n;
      for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0xedb88320u ^ (c >> 1) : c >> 1;
      made[n] = c;
    }
    return made;
  }();
  std::uint32_t c = 0xffffffffu;
  for (const char byte : data) c = table[(c ^ static_cast<unsigned char>(byte)) & 0xff] ^ (c >> 8);
  return c ^ 0xffffffffu;
}

Png walk_png(std::string_view data, Found& found) {
  Png png;
  std::size_t at = 8;
  for (bool ended = false; !ended;) {
    if (data.size() - at < 12) damaged("PNG", "it ends too early");
    const std::size_t length = number(data, at, 4);
    if (length > data.size() - at - 12) damaged("PNG", "it ends too early");
    const std::string_view type = data.substr(at + 4, 4), content = data.substr(at + 8, length);
    if (crc32(data.substr(at + 4, length + 4)) != number(data, at + 8 + length, 4)) {
      damaged("PNG", "the checksum of a chunk is wrong");
    }
    if (png.width == 0 && type != "IHDR") damaged("PNG", "no header");
    if (type == "IHDR") {
      if (png.width != 0 || length != 13) damaged("PNG", "no valid header");
      png.width = number(content, 0, 4);
      png.height = number(content, 4, 4);
      png.depth = content[8];
      png.colour = content[9];
      png.header = data.substr(at, length + 12);
      if (png.width == 0 || png.height == 0) damaged("PNG", "a side of 0 pixels");
    } else if (type == "PLTE") {
      png.palette = content;
    } else if (type == "tRNS") {
      png.transparent = true;
      png.palette_alpha = content;
    } else if (type == "IDAT") {
      if (png.colour == 3) png.image_data += data.substr(at, length + 12);
    } else if (type == "acTL" && length >= 4 && number(content, 0, 4) > 1) {
      throw Refused{"holds " + std::to_string(number(content, 0, 4)) +
                    " frames or pages; save the one to be scored as a file"};
    } else if (type == "iCCP") {
      found.icc = true;
    } else if (type == "eXIf") {
      found.exif = begins(content, std::string_view("Exif\0\0", 6)) ? content.substr(6) : content;
    } else if (begins(content, std::string_view("XML:com.adobe.xmp\0", 18)) && type == "iTXt") {
      if (length > 18 && content[18] != 0) throw Refused{"holds compressed XMP, which may turn it; write it without"};
      found.xmp = content.substr(18);
    } else if (begins(content, std::string_view("Raw profile type exif\0", 22))) {
      throw Refused{"holds EXIF data as text, which may turn it; write it without"};
    }
    ended = type == "IEND";
    at += length + 12;
  }
  return png;
}

std::string chunk(const std::string& type, const std::string& content) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>((content.size() >> shift) & 0xff);
  return out + type + content + std::string(4, '\0');  // stb looks at no checksum
}

// A PNG with a palette, with all 256 colours in it: those that the file lacks are transparent, so that a pixel of such a
// colour, for which stb would read memory that nobody wrote, is noticed.
std::string with_whole_palette(const Png& png) {
  const std::size_t colours = png.palette.size() / 3;
  if (colours == 0 || colours > 256 || png.palette.size() % 3 != 0 || png.palette_alpha.size() > colours) {
    damaged("PNG", "no valid palette");
  }
  std::string palette = png.palette, alpha = png.palette_alpha;
  palette.resize(768, '\0');
  alpha.resize(colours, '\xff');
  alpha.resize(256, '\0');
  std::string out = "\x89PNG\r\n\x1a\n";
  out += png.header;
  return out + chunk("PLTE", palette) + chunk("tRNS", alpha) + png.image_data + chunk("IEND", "");
}

void load_png(std::string_view data, Picture& picture, Found& found) {
  const Png png = walk_png(data, found);
  check_pixels(png.width, png.height);
  if (png.depth == 16 && png.colour == 2 && png.transparent) {
    throw Refused{"holds a 16-bit transparent colour; convert it to 8-bit RGBA first"};
  }
  std::string rewritten;
  if (png.colour == 3) data = rewritten = with_whole_palette(png);
  const auto* bytes = reinterpret_cast<const stbi_uc*>(data.data());
  const int size = static_cast<int>(data.size());
  int channels = 0;
  if (png.depth == 16) {
    const std::unique_ptr<stbi_us, Freed> samples(
        stbi_load_16_from_memory(bytes, size, &picture.width, &picture.height, &channels, 0));
    if (samples == nullptr) damaged("PNG", stbi_failure_reason());
    const bool gray = png.colour == 0;
    picture.notes[gray ? "gray16" : "rgb16"] = texts.at(gray ? "gray16" : "rgb16");
    take(
        picture, samples.get(), channels,
        [&](unsigned value) { return static_cast<std::uint8_t>(gray ? (value + 128) / 257 : value >> 8); }, nullptr);
    return;
  }
  const std::unique_ptr<stbi_uc, Freed> samples(
      stbi_load_from_memory(bytes, size, &picture.width, &picture.height, &channels, 0));
  if (samples == nullptr) damaged("PNG", stbi_failure_reason());
  take(
      picture, samples.get(), channels, [](stbi_uc value) { return value; },
      png.colour == 3 && !png.transparent ? "a pixel beyond the palette" : nullptr);
}

// Walks a JPEG's segments to the end of its primary picture.
void walk_jpeg(std::string_view data, Found& found) {
  std::size_t at = 2;
  int scans = 0;
  for (;;) {
    // Within a scan FF is followed by 0 or a restart marker.
    while (at + 1 < data.size() &&
           (data[at] != '\xff' || data[at + 1] == 0 || data[at + 1] == '\xff' || data[at + 1] == 1 ||
            (data[at + 1] >= '\xd0' && data[at + 1] <= '\xd8'))) {
      ++at;
    }
    if (at + 1 >= data.size()) damaged("JPEG", "it ends too early");
    const auto marker = static_cast<unsigned char>(data[at + 1]);
    if (marker == 0xd9) break;
    if (data.size() - at < 4) damaged("JPEG", "it ends too early");
    const std::size_t length = number(data, at + 2, 2);
    if (length < 2 || length > data.size() - at - 2) damaged("JPEG", "it ends too early");
    const std::string_view content = data.substr(at + 4, length - 2);
    const bool frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (frame) {
      if (content.size() < 6) damaged("JPEG", "no valid header");
      if (content[0] != 8) throw Refused{"holds " + std::to_string(content[0]) + "-bit values; convert it to 8-bit RGB first"};
      if (content[5] == 4) throw Refused{"holds CMYK inks; convert it to 8-bit RGB first"};
      if (marker > 0xc2) throw Refused{"is a JPEG of a rare kind (lossless or arithmetic); write it as a usual one"};
      check_pixels(number(content, 3, 2), number(content, 1, 2));
    }
    if (marker == 0xda && ++scans > most_scans) damaged("JPEG", "more than 100 scans");
    if (marker == 0xe1 && begins(content, std::string_view("Exif\0\0", 6))) found.exif = content.substr(6);
    if (marker == 0xe1 && begins(content, "http://ns.adobe.com/xap/1.0/")) found.xmp = content;
    if (marker == 0xe2 && begins(content, std::string_view("ICC_PROFILE\0", 12))) found.icc = true;
    if (marker == 0xe2 && begins(content, std::string_view("MPF\0", 4))) found.mpo = true;
    at += 2 + length;
  }
  if (scans == 0) damaged("JPEG", "no picture in it");
}

void load_jpeg(std::string_view data, Picture& picture, Found& found) {
  walk_jpeg(data, found);
  int channels = 0;
  const std::unique_ptr<stbi_uc, Freed> samples(
      stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(data.data()), static_cast<int>(data.size()), &picture.width,
                            &picture.height, &channels, 3));
  if (samples == nullptr) damaged("JPEG", stbi_failure_reason());
  take(
      picture, samples.get(), 3, [](stbi_uc value) { return value; }, nullptr);
}

}  // namespace

Picture load_image(const std::string& name) {
  try {
    const std::string data = read_file(name);
    Picture picture;
    Found found;
    if (begins(data, "\x89PNG\r\n\x1a\n")) {
      load_png(data, picture, found);
    } else if (begins(data, "\xff\xd8\xff")) {
      load_jpeg(data, picture, found);
    } else {
      throw Refused{"not a PNG or JPEG image; convert it to one of them"};
    }
    if (found.icc) picture.notes["icc"] = texts.at("icc");
    if (found.mpo) picture.notes["mpo"] = texts.at("mpo");
    make_upright(picture, orientation(found, picture));
    return picture;
  } catch (const Refused& refused) {
    throw ImageError(name + ": " + refused.what);
  } catch (const std::bad_alloc&) {
    throw ImageError(name + ": does not fit into memory when decoded; scale it down or cut it first");
  }
}
