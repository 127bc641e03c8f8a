/* A library that is no ONNX Runtime. */
int nothing_of_the_kind(void);

int nothing_of_the_kind(void) { return 0; }
