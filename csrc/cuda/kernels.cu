// All kernels, as one image.
#include "cuda/step.cu"
