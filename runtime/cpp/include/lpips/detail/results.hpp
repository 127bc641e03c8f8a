// Images into a graph, and what comes out of it as a Detail.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../lpips.hpp"
#include "graph.hpp"
#include "tensor.hpp"

namespace lpips::detail {

inline Input input_of(const Batch& batch, const char* name) {
  const auto count = static_cast<std::int64_t>(batch.count);
  if (batch.bytes.empty()) return floats_of(name, batch.floats, {count, 3, batch.height, batch.width});
  return {name, batch.bytes.data(), batch.bytes.size(), {count, batch.height, batch.width, 3}, uint8_type};
}

// Distance and layers are the means of the depths, in double: those of the graph are summed in an order that depends on
// the size of the batch. Error for numbers that no intact model gives.
inline Detail detail_of(const Graph& graph, std::vector<Tensor> outputs, std::size_t count, std::int64_t height,
                        std::int64_t width) {
  const std::size_t depths = graph.depths();
  const auto refuse = [&](const std::string& what) {
    throw Error(Code::damaged_model,
                graph.path() + ": gives " + what + ", as no intact model does; export the model again");
  };
  if (outputs[0].values.size() != count || outputs[1].values.size() != count * depths) {
    refuse("numbers of another count than its pairs");
  }
  Detail found;
  found.height = height;
  found.width = width;
  found.distance.resize(count);
  found.layers.resize(count * depths);
  std::vector<double> sums(count, 0.0);
  for (std::size_t k = 0; k < depths; ++k) {
    Tensor& depth = outputs[2 + k];
    if (depth.shape.size() != 3 || depth.shape[0] != static_cast<std::int64_t>(count) || depth.values.empty()) {
      refuse("maps of another count than its pairs");
    }
    const std::size_t one = depth.values.size() / count;
    for (std::size_t n = 0; n < count; ++n) {
      double sum = 0;
      for (std::size_t at = n * one; at < (n + 1) * one; ++at) sum += static_cast<double>(depth.values[at]);
      const double share = sum / static_cast<double>(one);
      found.layers[n * depths + k] = static_cast<float>(share);
      sums[n] += share;
    }
    found.depths.push_back({depth.shape[1], depth.shape[2], std::move(depth.values)});
  }
  for (std::size_t n = 0; n < count; ++n) {
    found.distance[n] = static_cast<float>(sums[n]);
    if (!std::isfinite(found.distance[n]) || !std::isfinite(outputs[0].values[n])) refuse("values that are not finite");
    if (found.distance[n] < 0) refuse("a distance of " + std::to_string(found.distance[n]));
  }
  return found;
}

// Checks pairs and runs them.
inline Detail run_pairs(const Graph& pair, const Image* reference, std::size_t references, const Image* distorted,
                        std::size_t distorteds) {
  check_pairs(reference, references, distorted, distorteds, pair.info());
  const Batch a = make_batch(reference, references, pair.info(), "reference");
  const Batch b = make_batch(distorted, distorteds, pair.info(), "distorted");
  return detail_of(pair, pair.run({input_of(a, "reference"), input_of(b, "distorted")}, result_names(pair.depths())),
                   a.count, a.height, a.width);
}

// Details of one model and size, one after the other.
inline void append(Detail& all, Detail more) {
  if (all.distance.empty()) {
    all = std::move(more);
    return;
  }
  const auto add = [](std::vector<float>& to, const std::vector<float>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  add(all.distance, more.distance);
  add(all.layers, more.layers);
  for (std::size_t k = 0; k < all.depths.size(); ++k) add(all.depths[k].values, more.depths[k].values);
}

}  // namespace lpips::detail
