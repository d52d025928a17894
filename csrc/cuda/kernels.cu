// All kernels, as one image.
#include "cuda/norm.cu"
#include "cuda/step.cu"
