#include "decoder.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "parts.hpp"

namespace {

thread_local bool out_of_memory = false;

void* noticed(void* memory) {
  if (memory == nullptr) out_of_memory = true;
  return memory;
}

// Cleared: what a hostile file has stb read before it is written is the same each time.
void* cleared(std::size_t size) { return noticed(std::calloc(1, std::max<std::size_t>(size, 1))); }

void* resized(void* memory, std::size_t size) { return noticed(std::realloc(memory, std::max<std::size_t>(size, 1))); }

// An empty chunk of pixels has stb copy 0 bytes to null.
void* copied(void* to, const void* from, std::size_t size) { return size == 0 ? to : std::memcpy(to, from, size); }

}  // namespace

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
#define STBI_MALLOC(size) cleared(size)
#define STBI_REALLOC(memory, size) resized(memory, size)
#define STBI_FREE(memory) std::free(memory)
#define memcpy(to, from, size) copied(to, from, size)
#include <stb/stb_image.h>
#undef memcpy
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace {

template <typename Sample, typename Load>
Samples<Sample> decode(Load load, std::string_view data, int channels, const char* kind) {
  Samples<Sample> found;
  out_of_memory = false;
  int in_file = 0;
  found.values.reset(load(reinterpret_cast<const stbi_uc*>(data.data()), static_cast<int>(data.size()), &found.width,
                          &found.height, &in_file, channels));
  found.channels = channels == 0 ? in_file : channels;
  if (found.values != nullptr) return found;
  // "bad png sig" is what is left of having looked whether a JPEG is a PNG.
  const char* said = stbi_failure_reason();
  const std::string reason = said == nullptr || std::strcmp(said, "bad png sig") == 0 ? "it cannot be decoded" : said;
  if (out_of_memory || reason == "outofmem") throw std::bad_alloc();
  damaged(kind, reason);
}

}  // namespace

Samples<std::uint8_t> decode_8(std::string_view data, int channels, const char* kind) {
  return decode<std::uint8_t>(stbi_load_from_memory, data, channels, kind);
}

Samples<std::uint16_t> decode_16(std::string_view data, int channels, const char* kind) {
  return decode<std::uint16_t>(stbi_load_16_from_memory, data, channels, kind);
}
