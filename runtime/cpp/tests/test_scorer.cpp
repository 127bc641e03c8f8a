#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "fault.hpp"
#include "opened.hpp"

using namespace lpips;

float score_in_another_file(const Scorer& scorer, const Image& a, const Image& b);

namespace {

const std::vector<std::string> pair_models = {"alex", "squeeze", "alex_uint8", "squeeze_baseline"};

}  // namespace

TEST_CASE("equal images are at 0, others are not, and order does not matter") {
  const Picture a(1), b(2);
  for (const std::string& name : pair_models) {
    INFO(name);
    const Scorer scorer(model(name));
    CHECK(scorer.score(a.view(), a.view()) == 0.0f);
    const float distance = scorer.score(a.view(), b.view());
    CHECK(distance > 0);
    CHECK(scorer.score(b.view(), a.view()) == doctest::Approx(distance).epsilon(1e-5));
    CHECK(score_in_another_file(scorer, a.view(), b.view()) == distance);
  }
}

TEST_CASE("layers sum to the distance and are the means of the depths, whose map has the image's size") {
  const Picture a(1, 61, 47), b(2, 61, 47);
  for (const std::string& name : pair_models) {
    INFO(name);
    const Detail detail = Scorer(model(name)).detail(a.view(), b.view());
    CHECK(detail.depths.size() == detail.layers.size());
    CHECK(std::accumulate(detail.layers.begin(), detail.layers.end(), 0.0f) ==
          doctest::Approx(detail.distance[0]).epsilon(1e-6));
    for (std::size_t k = 0; k < detail.depths.size(); ++k) {
      const Depth& depth = detail.depths[k];
      CHECK(depth.values.size() == static_cast<std::size_t>(depth.height * depth.width));
      const double sum = std::accumulate(depth.values.begin(), depth.values.end(), 0.0);
      CHECK(static_cast<float>(sum / static_cast<double>(depth.values.size())) == doctest::Approx(detail.layers[k]));
    }
    const std::vector<float> map = detail.map();
    CHECK(map.size() == 61 * 47);
    CHECK(std::accumulate(map.begin(), map.end(), 0.0) / (61 * 47) ==
          doctest::Approx(static_cast<double>(detail.distance[0])).epsilon(0.2));
  }
}

TEST_CASE("a pair has the same distance in a batch") {
  const Picture a(1), b(2), c(3);
  const Scorer scorer(model("alex"));
  const std::vector<float> both = scorer.score({a.view(), c.view()}, {b.view(), b.view()});
  CHECK(both.size() == 2);
  CHECK(both[0] == doctest::Approx(scorer.score(a.view(), b.view())).epsilon(1e-6));
  CHECK(both[1] == doctest::Approx(scorer.score(c.view(), b.view())).epsilon(1e-6));
  const Detail detail = scorer.detail({a.view(), c.view()}, {b.view(), b.view()});
  const Detail second = scorer.detail(c.view(), b.view());
  const std::vector<float> map = detail.map(), one = second.map();
  for (std::size_t k = 0; k < one.size(); ++k) CHECK(std::abs(map[one.size() + k] - one[k]) < 1e-6f);
}

TEST_CASE("planar floats give what their 8-bit pixels give") {
  const Picture a(1), b(2);
  const Scorer scorer(model("alex"));
  const auto planes = [](const Picture& picture) {
    const std::size_t plane = picture.pixels.size() / 3;
    std::vector<float> values(picture.pixels.size());
    for (std::size_t k = 0; k < values.size(); ++k) {
      values[k % 3 * plane + k / 3] = static_cast<float>(picture.pixels[k]) / 255.0f;
    }
    return values;
  };
  const std::vector<float> x = planes(a), y = planes(b);
  const float found = scorer.score({x.data(), x.size(), a.width, a.height, Range::unit},
                                   {y.data(), y.size(), b.width, b.height, Range::unit});
  CHECK(found == doctest::Approx(scorer.score(a.view(), b.view())).epsilon(1e-5));
  CHECK(code_of([&] {
          const Image image(x.data(), x.size(), a.width, a.height, Range::unit);
          Scorer(model("squeeze")).score(image, image);
        }) == Code::value);
}

TEST_CASE("what is compared by its features has the pair's distance, one reference against many") {
  const Picture a(1), b(2), c(3);
  for (const char* name : {"alex", "squeeze"}) {
    INFO(name);
    const Scorer scorer(model(name));
    const Features one = scorer.encode(a.view()), many = scorer.encode({b.view(), c.view(), a.view()});
    CHECK(one.count() == 1);
    CHECK(many.count() == 3);
    CHECK(many.width() == 48);
    const Detail found = scorer.compare(one, many);
    CHECK(found.distance.size() == 3);
    CHECK(found.distance[0] == doctest::Approx(scorer.score(a.view(), b.view())).epsilon(1e-6));
    CHECK(found.distance[1] == doctest::Approx(scorer.score(a.view(), c.view())).epsilon(1e-6));
    CHECK(found.distance[2] == 0.0f);
    CHECK(found.map().size() == 3 * 48 * 40);
    CHECK(scorer.compare(many, many).distance == std::vector<float>(3, 0.0f));
  }
}

TEST_CASE("many features are compared in blocks, as one by one") {
  const Scorer scorer(model("alex"));
  std::vector<Picture> pictures;
  std::vector<Image> views;
  for (std::uint32_t seed = 0; seed < 12; ++seed) pictures.emplace_back(seed, 160, 120);
  for (const Picture& picture : pictures) views.push_back(picture.view());
  const Features one = scorer.encode(views[0]);
  const Detail all = scorer.compare(one, scorer.encode(views));
  const std::vector<float> map = all.map();
  for (std::size_t k = 0; k < views.size(); ++k) {
    const Detail single = scorer.compare(one, scorer.encode(views[k]));
    CHECK(all.distance[k] == doctest::Approx(single.distance[0]).epsilon(1e-6));
    CHECK(std::abs(map[k * 160 * 120 + 77] - single.map()[77]) < 1e-6f);
  }
}

TEST_CASE("features that do not go together are refused") {
  const Scorer alex(model("alex")), squeeze(model("squeeze"));
  const Picture a(1), large(2, 64, 64);
  const Features one = alex.encode(a.view());
  const Features own = squeeze.encode(a.view());
  std::string message;
  CHECK(code_of([&] { squeeze.compare(one, own); }, &message) == Code::foreign_features);
  CHECK(contains(message, "reference: features of another model"));
  CHECK(code_of([&] { squeeze.compare(own, one); }, &message) == Code::foreign_features);
  CHECK(contains(message, "distorted: features of another model"));
  CHECK(code_of([&] { alex.compare(one, alex.encode(large.view())); }) == Code::shape);
  CHECK(code_of([&] { alex.compare(Features(), one); }) == Code::usage);
  const Features two = alex.encode({a.view(), a.view()}), three = alex.encode({a.view(), a.view(), a.view()});
  CHECK(code_of([&] { alex.compare(two, three); }) == Code::shape);
}

TEST_CASE("a Scorer that was moved from is as good as before") {
  Scorer first(model("alex"));
  const Picture a(1), b(2);
  const Scorer second = std::move(first);
  CHECK(first.score(a.view(), b.view()) == second.score(a.view(), b.view()));
  Scorer third(model("squeeze"));
  third = std::move(first);
  CHECK(first.info().net == "alex");
  CHECK(third.info().net == "alex");
}

TEST_CASE("numbers that no intact model gives are refused") {
  const auto library = std::make_shared<const detail::Library>(std::filesystem::path());
  const detail::Graph graph(model("alex"), {library, detail::parse_provider("cpu"), 1, false}, "pair");
  // One pair, whose depths all are 2x2 of this value.
  const auto outputs = [](float distance, float value) {
    std::vector<detail::Tensor> made = {{{1}, {distance}}, {{1, 5}, std::vector<float>(5, value)}};
    made.resize(7, {{1, 2, 2}, std::vector<float>(4, value)});
    return made;
  };
  std::string message;
  const auto code = [&](std::vector<detail::Tensor> made, std::size_t count = 1) {
    return code_of([&] { detail::detail_of(graph, std::move(made), count, 40, 48); }, &message);
  };
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(code(outputs(0.5f, 0.1f)) == std::nullopt);
  for (const float bad : {infinity, -infinity, std::nanf("")}) {
    CHECK(code(outputs(0.5f, bad)) == Code::damaged_model);
    CHECK(contains(message, "not finite"));
    CHECK(code(outputs(bad, 0.1f)) == Code::damaged_model);
    CHECK(contains(message, "not finite"));
  }
  CHECK(code(outputs(-0.5f, -0.1f)) == Code::damaged_model);
  CHECK(contains(message, "a distance of -0.5"));
  CHECK(code(outputs(0.5f, 0.1f), 2) == Code::damaged_model);
  std::vector<detail::Tensor> two = outputs(0.5f, 0.1f);
  two[3].shape = {2, 1, 2};
  CHECK(code(two) == Code::damaged_model);
  two[3] = {{1, 0, 2}, {}};
  CHECK(code(two) == Code::damaged_model);
}

TEST_CASE("ONNX Runtime's want of memory has a code of its own") {
  const detail::Library library{std::filesystem::path()};
  const auto code = [&](const char* words) {
    return code_of([&] { library.check(library.api().CreateStatus(ORT_FAIL, words), Code::provider, "x.onnx: failed"); });
  };
  CHECK(code("/src/bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 1") == Code::memory);
  CHECK(code("Available memory of 1 is smaller than requested bytes of 2") == Code::memory);
  CHECK(code("Exception caught: std::bad_alloc") == Code::memory);
  CHECK(code("CUDA failure 2: out of memory") == Code::memory);
  CHECK(code("a wrong shape") == Code::provider);
}

TEST_CASE("encode and compare need their models") {
  const Picture a(1);
  std::string message;
  CHECK(code_of([&] { Scorer(model("alex_uint8")).encode(a.view()); }, &message) == Code::model_not_found);
  CHECK(contains(message, "lpips-export --split"));
}

TEST_CASE("what is wrong with images is said before the model sees them") {
  const Scorer scorer(model("alex"));
  const Picture a(1), small(2, 30, 40), other(3, 40, 48);
  CHECK(code_of([&] { scorer.score(small.view(), small.view()); }) == Code::shape);
  CHECK(code_of([&] { scorer.score(a.view(), other.view()); }) == Code::shape);
  CHECK(code_of([&] { scorer.score(Image(), a.view()); }) == Code::shape);
  CHECK(code_of([&] { scorer.encode(small.view()); }) == Code::shape);
  CHECK(code_of([&] { scorer.score(std::vector<Image>(), {}); }) == Code::shape);
  CHECK(code_of([&] { scorer.encode(std::vector<Image>()); }) == Code::shape);
}

TEST_CASE("a session that opens quickly gives the same distances") {
  const Picture a(1), b(2);
  Options quick;
  quick.quick_start = true;
  for (const std::string& name : pair_models) {
    CHECK(Scorer(model(name), quick).score(a.view(), b.view()) ==
          doctest::Approx(Scorer(model(name)).score(a.view(), b.view())).epsilon(1e-6));
  }
}

TEST_CASE("a model says what it is") {
  const Scorer scorer(model("squeeze"));
  CHECK(scorer.info().net == "squeeze");
  CHECK(scorer.info().input == "uint8");
  CHECK(scorer.info().min_size == 17);
  CHECK(contains(scorer.onnxruntime_version(), "."));
}
