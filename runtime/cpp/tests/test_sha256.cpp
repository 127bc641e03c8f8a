#include <doctest/doctest.h>

#include <lpips/detail/sha256.hpp>

using lpips::detail::Sha256;

namespace {

std::string hash(const std::string& text, bool instructions) {
  Sha256 sha(instructions);
  sha.update(text);
  return sha.hex();
}

}  // namespace

// FIPS 180-4's own examples, and a million times "a", which NIST publishes beside them.
TEST_CASE("sha256 gives the published values") {
  for (const bool instructions : {false, lpips::detail::has_sha_instructions()}) {
    CHECK(hash("", instructions) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(hash("abc", instructions) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", instructions) ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(hash(std::string(1000000, 'a'), instructions) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

TEST_CASE("sha256 does not depend on the pieces it is given, nor on the CPU's instructions") {
  std::string text;
  for (int k = 0; k < 300; ++k) text += static_cast<char>(k * 37 + k / 7);
  for (std::size_t length = 0; length <= text.size(); length += 7) {
    const std::string whole = text.substr(0, length);
    const std::string expected = hash(whole, false);
    CHECK(hash(whole, lpips::detail::has_sha_instructions()) == expected);
    for (const std::size_t cut : {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{65}, std::size_t{129}}) {
      if (cut > length) continue;
      Sha256 sha;
      sha.update(whole.substr(0, cut));
      sha.update(whole.substr(cut));
      CHECK(sha.hex() == expected);
    }
  }
}
