// A pair graph in OpenVINO, without ONNX Runtime: see docs/embedding.md.
//
//   g++ -std=c++17 -I openvino/include openvino.cpp openvino/libs/libopenvino.so.2641
//
// Compiled by hand with OpenVINO 2026.4.1, whose wheel has both folders, and run on a CPU. Not in the tests.
#include <openvino/openvino.hpp>

#include <cstdio>

int main(int count, char** given) {
  ov::Core core;
  const auto model = core.read_model(count > 1 ? given[1] : "artifacts/lpips_alex_fp32.onnx");
  const ov::PartialShape sizes{-1, 3, ov::Dimension(31, 2160), ov::Dimension(31, 3840)};
  model->reshape({{"reference", sizes}, {"distorted", sizes}});  // not needed: the graph takes any size
  auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32),  // else bfloat16
                                     ov::inference_num_threads(1));
  auto request = compiled.create_infer_request();
  for (const char* name : {"reference", "distorted"}) {
    ov::Tensor image(ov::element::f32, {1, 3, 64, 64});
    for (std::size_t k = 0; k < image.get_size(); ++k) {
      const std::size_t value = name[0] == 'r' ? k % 255 : k % 255 / 16 * 16;
      image.data<float>()[k] = static_cast<float>(value) / 127.5f - 1;
    }
    request.set_tensor(name, image);
  }
  request.infer();
  std::printf("%.6f\n", static_cast<double>(request.get_tensor("distance").data<float>()[0]));
}
