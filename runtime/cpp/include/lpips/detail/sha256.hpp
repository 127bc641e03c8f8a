// SHA-256 (FIPS 180-4), for the seal of a model. A dependency would be larger than these lines. With x86's instructions for
// it, where there are any: the 10 MB of AlexNet take 6 ms in place of 37, which is as long as ONNX Runtime takes to open them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#if defined(__x86_64__) && defined(__GNUC__)
#define LPIPS_SHA_INSTRUCTIONS
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace lpips::detail {

// Whether this CPU has instructions for SHA-256, and those around them that are used here.
inline bool has_sha_instructions() {
#if defined(LPIPS_SHA_INSTRUCTIONS)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_SSSE3) == 0 || (c & bit_SSE4_1) == 0) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b >> 29 & 1) != 0;
#else
  return false;
#endif
}

class Sha256 {
 public:
  explicit Sha256(bool instructions = has_sha_instructions()) : instructions_(instructions) {}

  void update(std::string_view data) {
    total_ += data.size();
    if (filled_ > 0) {
      const std::size_t part = std::min(data.size(), block_.size() - filled_);
      std::memcpy(block_.data() + filled_, data.data(), part);
      filled_ += part;
      data.remove_prefix(part);
      if (filled_ < block_.size()) return;
      digest(block_.data(), 1);
      filled_ = 0;
    }
    const std::size_t whole = data.size() / block_.size();
    digest(reinterpret_cast<const unsigned char*>(data.data()), whole);
    data.remove_prefix(whole * block_.size());
    if (!data.empty()) std::memcpy(block_.data(), data.data(), data.size());
    filled_ = data.size();
  }

  // Lower-case hexadecimal digits. Ends the calculation.
  std::string hex() {
    const std::uint64_t bits = static_cast<std::uint64_t>(total_) * 8;
    const std::size_t zeros = (filled_ < 56 ? 55 : 119) - filled_;
    update(std::string_view("\x80", 1));
    update(std::string(zeros, '\0'));
    std::string length(8, '\0');
    for (std::size_t k = 0; k < 8; ++k) length[k] = static_cast<char>((bits >> (56 - 8 * k)) & 0xff);
    update(length);
    std::string out;
    for (const std::uint32_t word : state_) {
      for (int shift = 28; shift >= 0; shift -= 4) out += "0123456789abcdef"[(word >> shift) & 15];
    }
    return out;
  }

 private:
  static std::uint32_t rotate(std::uint32_t x, int by) { return (x >> by) | (x << (32 - by)); }

  static constexpr std::array<std::uint32_t, 64> constants_ = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

  void digest(const unsigned char* data, std::size_t blocks) {
#if defined(LPIPS_SHA_INSTRUCTIONS)
    if (instructions_) return digest_by_instructions(data, blocks);
#endif
    for (std::size_t n = 0; n < blocks; ++n) digest(data + 64 * n);
  }

  void digest(const unsigned char* block) {
    std::array<std::uint32_t, 64> w;
    for (std::size_t t = 0; t < 16; ++t) {
      w[t] = static_cast<std::uint32_t>(block[4 * t]) << 24 | static_cast<std::uint32_t>(block[4 * t + 1]) << 16 |
             static_cast<std::uint32_t>(block[4 * t + 2]) << 8 | static_cast<std::uint32_t>(block[4 * t + 3]);
    }
    for (std::size_t t = 16; t < 64; ++t) {
      const std::uint32_t s0 = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ (w[t - 15] >> 3);
      const std::uint32_t s1 = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ (w[t - 2] >> 10);
      w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (std::size_t t = 0; t < 64; ++t) {
      const std::uint32_t t1 =
          h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + constants_[t] + w[t];
      const std::uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = d + t1;
      d = c;
      c = b;
      b = a;
      a = t1 + t2;
    }
    const std::array<std::uint32_t, 8> words = {a, b, c, d, e, f, g, h};
    for (std::size_t n = 0; n < 8; ++n) state_[n] += words[n];
  }

#if defined(LPIPS_SHA_INSTRUCTIONS)
  static __m128i loaded(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }

  // The instructions hold the state as two vectors, ABEF and CDGH, and do two rounds at a time.
  __attribute__((target("sha,sse4.1"))) void digest_by_instructions(const unsigned char* data, std::size_t blocks) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i cdab = _mm_shuffle_epi32(loaded(&state_[0]), 0xB1);
    const __m128i efgh = _mm_shuffle_epi32(loaded(&state_[4]), 0x1B);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
    for (std::size_t n = 0; n < blocks; ++n, data += 64) {
      const __m128i abef_before = abef, cdgh_before = cdgh;
      __m128i w[4];
      for (int k = 0; k < 4; ++k) w[k] = _mm_shuffle_epi8(loaded(data + 16 * k), big_endian);
      for (int k = 0; k < 16; ++k) {
        const __m128i sum = _mm_add_epi32(w[k & 3], loaded(&constants_[static_cast<std::size_t>(4 * k)]));
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
        if (k >= 12) continue;
        const __m128i last = w[(k + 3) & 3];
        const __m128i next = _mm_add_epi32(_mm_sha256msg1_epu32(w[k & 3], w[(k + 1) & 3]),
                                           _mm_alignr_epi8(last, w[(k + 2) & 3], 4));
        w[k & 3] = _mm_sha256msg2_epu32(next, last);
      }
      abef = _mm_add_epi32(abef, abef_before);
      cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    const __m128i feba = _mm_shuffle_epi32(abef, 0x1B), dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(&state_[0]), _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(&state_[4]), _mm_alignr_epi8(dchg, feba, 8));
  }
#endif

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> block_{};
  bool instructions_;
  std::size_t filled_ = 0;
  std::size_t total_ = 0;
};

}  // namespace lpips::detail
