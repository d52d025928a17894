// torch's DLPack exchange API, over which tensors on the CPU pass for tensors on CUDA devices.
#include <ATen/dlpack.h>
#include <string.h>

enum { kPlaces = 4096, kDevices = 8 };

static struct {
  const char *begin, *end;
  int device;
} places[kPlaces];
static int n_places, default_device;
static void* streams[kDevices];
static const DLPackExchangeAPI* torch_api;

// The device of memory that no place covers; -1 leaves it on the CPU.
void exchange_set_default(int device) { default_device = device; }

void exchange_set_stream(int device, void* stream) { streams[device] = stream; }

// Forgets every place that overlaps, as memory that was freed may come back for another tensor. 0 when all is full.
int exchange_place(const char* begin, const char* end, int device) {
  int kept = 0;
  for (int i = 0; i < n_places; ++i) {
    if (places[i].end <= begin || end <= places[i].begin) places[kept++] = places[i];
  }
  n_places = kept;
  if (n_places == kPlaces) return 0;
  places[n_places].begin = begin;
  places[n_places].end = end;
  places[n_places++].device = device;
  return 1;
}

void exchange_forget_places(void) { n_places = 0; }

int exchange_device(const char* address) {
  for (int i = 0; i < n_places; ++i) {
    if (places[i].begin <= address && address < places[i].end) return places[i].device;
  }
  return default_device;
}

static int read_tensor(void* tensor, DLTensor* view) {
  const int failed = torch_api->dltensor_from_py_object_no_sync(tensor, view);
  if (failed || view->device.device_type != kDLCPU) return failed;
  const int device = exchange_device((const char*)view->data + view->byte_offset);
  if (device >= 0) {
    view->device.device_type = kDLCUDA;
    view->device.device_id = device;
  }
  return 0;
}

static int current_stream(DLDeviceType type, int32_t device, void** stream) {
  if (type != kDLCUDA) return torch_api->current_work_stream(type, device, stream);
  *stream = streams[device];
  return 0;
}

const DLPackExchangeAPI* exchange_over(const DLPackExchangeAPI* of_torch) {
  static DLPackExchangeAPI api;
  torch_api = of_torch;
  memcpy(&api, of_torch, sizeof api);
  api.dltensor_from_py_object_no_sync = read_tensor;
  api.current_work_stream = current_stream;
  return &api;
}
