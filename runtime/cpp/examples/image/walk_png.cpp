#include <algorithm>
#include <array>

#include "parts.hpp"

namespace {

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

class Walk {
 public:
  Walk(std::string_view data, Found& found, std::int64_t limit) : data_(data), found_(found), limit_(limit) {}

  Png png() {
    std::size_t at = 8;
    std::string_view type;
    while (type != "IEND") {
      if (data_.size() - at < 12) damaged("PNG", "it ends too early");
      const std::size_t length = number(data_, at, 4);
      if (length > data_.size() - at - 12) damaged("PNG", "it ends too early");
      type = data_.substr(at + 4, 4);
      if (crc32(data_.substr(at + 4, length + 4)) != number(data_, at + 8 + length, 4)) {
        damaged("PNG", "the checksum of a chunk is wrong");
      }
      if (at == 8 && type != "IHDR") damaged("PNG", "no header");
      chunk(type, data_.substr(at + 8, length), data_.substr(at, length + 12));
      at += length + 12;
    }
    return png_;
  }

 private:
  void chunk(std::string_view type, std::string_view content, std::string_view whole) {
    if (type != "IDAT" && pixels_ == Pixels::now) pixels_ = Pixels::past;
    if (type == "IHDR") {
      header(content, whole);
    } else if (type == "PLTE") {
      if (png_.colour == 3 && pixels_ != Pixels::not_yet) damaged("PNG", "its palette comes after the pixels");
      png_.palette = content;
    } else if (type == "tRNS") {
      if (pixels_ != Pixels::not_yet) damaged("PNG", "its transparency comes after the pixels");
      if (png_.depth == 16 && png_.colour == 2) {
        throw Refused{"holds a 16-bit transparent colour; convert it to 8-bit RGBA first"};
      }
      // Where others take any number but 0 for white.
      if (png_.depth == 1 && png_.colour == 0 && content.size() == 2 && number(content, 0, 2) > 1) {
        damaged("PNG", "no valid transparent value");
      }
      png_.transparent = true;
      png_.palette_alpha = content;
    } else if (type == "IDAT") {
      pixels(whole);
    } else if (type == "acTL" || type == "fcTL" || type == "fdAT") {
      animation(type, content);
    } else if (type == "CgBI") {
      throw Refused{"is a PNG for iPhones alone; write it as a usual one"};
    } else if (type == "iCCP") {
      found_.icc = true;
    } else if (type == "eXIf") {
      found_.exif = std::string(exif_mark) += content;
    } else if (type == "tEXt" || type == "zTXt" || type == "iTXt") {
      text(type, content);
    }
  }

  void header(std::string_view content, std::string_view whole) {
    if (png_.width != 0 || content.size() != 13) damaged("PNG", "no valid header");
    png_.width = number(content, 0, 4);
    png_.height = number(content, 4, 4);
    check_pixels(png_.width, png_.height, limit_, "PNG");
    png_.depth = static_cast<unsigned char>(content[8]);
    png_.colour = static_cast<unsigned char>(content[9]);
    png_.header = whole;
  }

  void pixels(std::string_view whole) {
    if (pixels_ == Pixels::past) damaged("PNG", "another chunk interrupts its pixels");
    if (frames_ == 1 && !frame_) several_frames(2);  // the picture is none of the animation's frames
    pixels_ = Pixels::now;
    if (png_.colour == 3) png_.image_data += whole;
  }

  [[noreturn]] static void several_frames(std::uint32_t frames) {
    throw Refused{"holds " + std::to_string(frames) + " frames or pages; save the one to be scored as a file"};
  }

  // An animation of one frame, which is the whole picture, is a picture.
  void animation(std::string_view type, std::string_view content) {
    if (type == "acTL") {
      if (content.size() < 8) damaged("PNG", "no valid animation");
      frames_ = number(content, 0, 4);
      if (frames_ > 1) several_frames(frames_);
      return;
    }
    const bool whole = type == "fcTL" && content.size() >= 26 && number(content, 0, 4) == 0 &&
                       number(content, 4, 4) == png_.width && number(content, 8, 4) == png_.height &&
                       number(content, 12, 4) == 0 && number(content, 16, 4) == 0;
    if (!whole || frame_ || pixels_ != Pixels::not_yet) {
      throw Refused{"holds frames of an animation; save the one to be scored as a file"};
    }
    frame_ = true;
  }

  void text(std::string_view type, std::string_view content) {
    const std::string_view word = content.substr(0, content.find('\0'));
    if (word == "bbox" || word == "interlace" || word == "transparency") {
      damaged("PNG", "a text chunk with a reserved name");
    }
    if (word == "Raw profile type exif" || word == "exif") {
      throw Refused{"holds EXIF data as text, which may turn it; write it without"};
    }
    if (word == "xmp") throw Refused{"holds a text named xmp, which may turn it; write it without"};
    if (word != "XML:com.adobe.xmp") return;
    std::string_view rest = content.substr(std::min(word.size() + 1, content.size()));
    if (type == "iTXt") {
      if (rest.size() < 2) return;
      const bool compressed = rest[0] != 0;
      rest.remove_prefix(2);
      for (int k = 0; k < 2; ++k) {  // the language, and the name in it
        const std::size_t end = rest.find('\0');
        if (end == std::string_view::npos) return;
        rest.remove_prefix(end + 1);
      }
      if (compressed) type = "zTXt";
    }
    if (type == "zTXt") throw Refused{"holds compressed XMP, which may turn it; write it without"};
    if (found_.xmp) throw Refused{"holds XMP twice, which may turn it; write it without"};
    found_.xmp = rest;
  }

  enum class Pixels { not_yet, now, past };

  std::string_view data_;
  Found& found_;
  std::int64_t limit_;
  Png png_{};
  Pixels pixels_ = Pixels::not_yet;
  std::uint32_t frames_ = 0;
  bool frame_ = false;
};

std::string chunk(const std::string& type, const std::string& content) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>((content.size() >> shift) & 0xff);
  return out + type + content + std::string(4, '\0');  // stb looks at no checksum
}

}  // namespace

Png walk_png(std::string_view data, Found& found, std::int64_t limit) { return Walk(data, found, limit).png(); }

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
