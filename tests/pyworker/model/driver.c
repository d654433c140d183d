/* A driver's NVML library with two GPUs, for the real binding to load: one well, one that lacks sensors and breaks. */
#include <string.h>
typedef unsigned int u32;
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { u32 gpu, memory; } rates_t;
typedef struct { void *device; u64 type, data; u32 gi, ci; } event_t;
static int gpu[2];
static int told;
enum { OK = 0, NOT_SUPPORTED = 3, TIMEOUT = 10 };
int nvmlInitWithFlags(u32 flags) { (void)flags; return OK; }
int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == TIMEOUT ? "Timeout" : "Not Supported"; }
int nvmlDeviceGetCount_v2(u32 *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(u32 index, void **device) { *device = &gpu[index]; return OK; }
int nvmlDeviceGetName(void *device, char *name, u32 length) { (void)device; strncpy(name, "NVIDIA Test 4090", length); return OK; }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *m) { (void)device; m->total = 24ull << 30; m->used = 6ull << 30; m->free = 18ull << 30; return OK; }
int nvmlDeviceGetUtilizationRates(void *device, rates_t *r) { (void)device; r->gpu = 87; r->memory = 40; return OK; }
int nvmlDeviceGetPowerUsage(void *device, u32 *mw) { if (device == &gpu[1]) return NOT_SUPPORTED; *mw = 312500; return OK; }
int nvmlDeviceGetTemperature(void *device, u32 sensor, u32 *c) { (void)device; (void)sensor; *c = 64; return OK; }
int nvmlDeviceGetTotalEccErrors(void *device, u32 type, u32 counter, u64 *n) { (void)type; (void)counter; if (device == &gpu[0]) return NOT_SUPPORTED; *n = 3; return OK; }
int nvmlEventSetCreate(void **set) { *set = &told; return OK; }
int nvmlDeviceRegisterEvents(void *device, u64 types, void *set) { (void)device; (void)types; (void)set; return OK; }
int nvmlEventSetWait_v2(void *set, event_t *e, u32 ms) {
  (void)set; (void)ms;
  if (told++) return TIMEOUT;
  e->device = &gpu[1]; e->type = 8; e->data = 79; e->gi = e->ci = 0;
  return OK;
}
