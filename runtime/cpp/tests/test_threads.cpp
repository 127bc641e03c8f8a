#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "opened.hpp"

using namespace lpips;

TEST_CASE("eight threads share one scorer") {
  Options options;
  options.threads = 2;
  const Scorer scorer(model("alex"), options);
  const Picture a(1), b(2), large(3, 64, 56), other(4, 64, 56);
  const float small = scorer.score(a.view(), b.view()), wide = scorer.score(large.view(), other.view());
  std::atomic<int> wrong{0};
  const auto near = [](float found, float expected) { return std::abs(found - expected) <= 1e-6f * expected; };
  std::vector<std::thread> threads;
  for (int number = 0; number < 8; ++number) {
    threads.emplace_back([&, number] {
      const Scorer mine = scorer;  // copies share the model
      for (int k = 0; k < 6; ++k) {
        const bool even = (number + k) % 2 == 0;
        const Picture& one = even ? a : large;
        const Picture& two = even ? b : other;
        if (!near(mine.score(one.view(), two.view()), even ? small : wide)) ++wrong;
        // The first of all opens the siblings.
        const Detail compared = mine.compare(mine.encode(one.view()), mine.encode(two.view()));
        if (!near(compared.distance[0], even ? small : wide) || compared.map().empty()) ++wrong;
        try {
          mine.score(one.view(), even ? large.view() : a.view());
          ++wrong;
        } catch (const Error&) {
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("scorers may be opened and closed in several threads at once") {
  const Picture a(1), b(2);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([&] {
      if (Scorer(model("squeeze")).score(a.view(), b.view()) <= 0) ++wrong;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}
