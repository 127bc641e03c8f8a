# Two commands on a fresh machine with Python 3.11 or newer and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROJECT := pyproject.toml runtime/pyproject.toml hatch_build.py runtime/lpips_runtime/_version.py

.PHONY: help demo test cpp check format bench dist clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.demo: $(PROJECT)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e ./runtime -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --disable-pip-version-check -q -e ./runtime -e '.[cpu,dev]'
	@touch $@

demo: $(VENV)/.demo  ## export AlexNet, prove it, score a photograph against distorted versions of it
	$(BIN)/python tools/demo.py

test: $(VENV)/.dev  ## the whole suite, the PyTorch-free environment included
	$(BIN)/python -m pytest -n 2 --dist loadfile

cpp: $(VENV)/.dev  ## the C++ header's C ABI and the native lpips-score, in build/cpp
	headers=$$($(BIN)/python -m tools.onnxruntime_headers) && \
	cmake -S runtime/cpp -B build/cpp -DLPIPS_WERROR=ON -DLPIPS_ONNXRUNTIME_INCLUDE_DIR="$$headers"
	cmake --build build/cpp

check: $(VENV)/.dev  ## format, lint and types, and whether documents are as the reports have them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m benchmarks report --check
	$(BIN)/python -m benchmarks tables --check

format: $(VENV)/.dev  ## rewrite the code the way `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The C++ library is a subject if `make cpp` has built it.
bench: $(VENV)/.dev artifacts/lpips_alex_fp32.onnx artifacts/lpips_alex_fp32_openvino.onnx  ## this project beside its peers, in build/bench.md, within ten minutes
	mkdir -p build
	$(BIN)/python -m benchmarks latency artifacts/lpips_alex_fp32.onnx --sizes 64x64 256x256 --batch 1 \
	    --rounds 10 --within 9min -o build/bench.json

dist: $(VENV)/.dev artifacts/lpips_alex_fp32.onnx  ## wheels of both packages and of every model in artifacts/, in dist/
	$(BIN)/python -m tools.dist

artifacts/lpips_alex_fp32.onnx: | $(VENV)/.demo
	$(BIN)/lpips-export --net alex

artifacts/lpips_alex_fp32_openvino.onnx: | $(VENV)/.demo
	$(BIN)/lpips-export --net alex --target openvino

clean:  ## remove the environment and what was built; artifacts/ stays
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis
