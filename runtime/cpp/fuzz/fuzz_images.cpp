// Whatever an image file holds, it is a picture or an ImageError; never undefined behaviour. The input is the file; the
// checksums of a PNG's chunks are put right first, since nothing finds them by chance.
#include <cstdlib>
#include <cstring>

#include "image_file.hpp"

namespace {

std::uint32_t crc32(const std::string& data, std::size_t from, std::size_t to) {
  std::uint32_t c = 0xffffffffu;
  for (std::size_t k = from; k < to; ++k) {
    c ^= static_cast<unsigned char>(data[k]);
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? 0xedb88320u ^ (c >> 1) : c >> 1;
  }
  return c ^ 0xffffffffu;
}

void put_right(std::string& png) {
  for (std::size_t at = 8; png.size() - at >= 12;) {
    std::size_t length = 0;
    for (std::size_t k = 0; k < 4; ++k) length = length << 8 | static_cast<unsigned char>(png[at + k]);
    if (length > png.size() - at - 12) return;
    const std::uint32_t sum = crc32(png, at + 4, at + 8 + length);
    for (std::size_t k = 0; k < 4; ++k) png[at + 8 + length + k] = static_cast<char>((sum >> (24 - 8 * k)) & 0xff);
    at += length + 12;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string file(reinterpret_cast<const char*>(data), size);
  if (file.compare(0, 8, "\x89PNG\r\n\x1a\n") == 0) put_right(file);
  // Memory of exactly this size, so that a read beyond it shows.
  const std::vector<char> exact(file.begin(), file.end());
  try {
    const Picture picture = decode_image({exact.data(), exact.size()}, "x", 1 << 16);
    if (picture.width < 1 || picture.height < 1) std::abort();
    if (picture.pixels.size() != 3 * static_cast<std::size_t>(picture.width) * static_cast<std::size_t>(picture.height)) {
      std::abort();
    }
  } catch (const ImageError& error) {
    if (std::strncmp(error.what(), "x: ", 3) != 0) std::abort();
  }
  return 0;
}
