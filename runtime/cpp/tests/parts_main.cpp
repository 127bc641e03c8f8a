// Tests of the parts that need neither ONNX Runtime nor a model.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
