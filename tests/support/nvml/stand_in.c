/* A stand-in for NVIDIA's management library: answers from a text file that TRTBUILD_NVML_FACTS names, read anew at
 * each nvmlInit. It has the functions that trtbuild calls and no other; what the file does not tell is not supported.
 *
 *   driver 550.54.15        cuda 12040         of the machine
 *   fail nvmlInit 18        that function returns that code; after `gpu`, for that GPU alone
 *   gpu                     from here on of one GPU
 *   name, uuid, memory (MiB), capability (9 0), cores, mig (0 or 1)
 *   slice                   from here on of one slice of it: name, uuid, memory, sms, instance, compute, share (1 1)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { MANY = 16, LONG = 128 };

struct failure {
    char function[64];
    int code;
};

struct device {
    char name[LONG], uuid[LONG];
    unsigned long long memory; /* MiB */
    int major, minor, has_memory, has_capability, has_cores, has_mig;
    unsigned cores, mig, sms, instance, compute, share[2];
    struct failure failures[4];
    int failing, slices;
    struct device *slice[MANY];
};

static struct {
    char driver[LONG];
    int cuda, count, failing;
    struct failure failures[4];
    struct device *gpu[MANY];
} machine;

/* As in nvml.h. */
typedef struct {
    unsigned long long total, free, used;
} memory_info;
typedef struct {
    unsigned multiprocessors, copy, decoder, encoder, jpeg, ofa, instance_slices, compute_slices;
    unsigned long long memory_mb;
} attributes;

static int failure_of(const struct failure *list, int count, const char *function) {
    for (int at = 0; at < count; at++)
        if (!strcmp(list[at].function, function)) return list[at].code;
    return SUCCESS;
}

static int text(const char *from, char *to, unsigned length) {
    if (!*from) return NOT_SUPPORTED;
    if (strlen(from) >= length) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

static void fact(struct device *of, const char *line) {
    if (sscanf(line, "name %127[^\n]", of->name) == 1 || sscanf(line, "uuid %127s", of->uuid) == 1) return;
    if (sscanf(line, "memory %llu", &of->memory) == 1) of->has_memory = 1;
    if (sscanf(line, "capability %d %d", &of->major, &of->minor) == 2) of->has_capability = 1;
    if (sscanf(line, "cores %u", &of->cores) == 1) of->has_cores = 1;
    if (sscanf(line, "mig %u", &of->mig) == 1) of->has_mig = 1;
    (void)(sscanf(line, "sms %u", &of->sms) + sscanf(line, "instance %u", &of->instance) +
           sscanf(line, "compute %u", &of->compute) + sscanf(line, "share %u %u", &of->share[0], &of->share[1]));
}

static void load(FILE *file) {
    char line[512];
    struct device *gpu = NULL, *of = NULL;
    memset(&machine, 0, sizeof machine);
    while (fgets(line, sizeof line, file)) {
        struct failure failure;
        if (sscanf(line, "fail %63s %d", failure.function, &failure.code) == 2) {
            if (of) of->failures[of->failing++] = failure;
            else machine.failures[machine.failing++] = failure;
        } else if (!strncmp(line, "gpu", 3)) {
            of = gpu = machine.gpu[machine.count++] = calloc(1, sizeof *gpu);
        } else if (!strncmp(line, "slice", 5)) {
            of = gpu->slice[gpu->slices++] = calloc(1, sizeof *of);
        } else if (of) {
            fact(of, line);
        } else if (sscanf(line, "driver %127s", machine.driver) != 1) {
            (void)sscanf(line, "cuda %d", &machine.cuda);
        }
    }
}

#define FAILS(of)                                                              \
    do {                                                                       \
        int code = failure_of((of)->failures, (of)->failing, __func__);        \
        if (code) return code;                                                 \
    } while (0)

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    const char *path = getenv("TRTBUILD_NVML_FACTS");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return INVALID_ARGUMENT;
    load(file);
    fclose(file);
    return failure_of(machine.failures, machine.failing, "nvmlInit");
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    case 999: return "Unknown Error";
    default: return "Another Error";
    }
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) { return text(machine.driver, version, length); }

int nvmlSystemGetCudaDriverVersion(int *version) {
    FAILS(&machine);
    *version = machine.cuda;
    return machine.cuda ? SUCCESS : NOT_SUPPORTED;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    FAILS(&machine);
    *version = machine.cuda;
    return machine.cuda ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)machine.count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **device) {
    if (index >= (unsigned)machine.count) return INVALID_ARGUMENT;
    FAILS(machine.gpu[index]);
    *device = machine.gpu[index];
    return SUCCESS;
}

int nvmlDeviceGetName(struct device *device, char *name, unsigned length) {
    FAILS(device);
    return text(device->name, name, length);
}

int nvmlDeviceGetUUID(struct device *device, char *uuid, unsigned length) { return text(device->uuid, uuid, length); }

int nvmlDeviceGetMemoryInfo(struct device *device, memory_info *memory) {
    FAILS(device);
    if (!device->has_memory) return NOT_SUPPORTED;
    memory->total = memory->free = device->memory << 20;
    memory->used = 0;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(struct device *device, int *major, int *minor) {
    if (!device->has_capability) return NOT_SUPPORTED;
    *major = device->major;
    *minor = device->minor;
    return SUCCESS;
}

int nvmlDeviceGetNumGpuCores(struct device *device, unsigned *cores) {
    FAILS(device);
    *cores = device->cores;
    return device->has_cores ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMigMode(struct device *device, unsigned *current, unsigned *pending) {
    *current = *pending = device->mig;
    return device->has_mig ? SUCCESS : NOT_SUPPORTED;
}

/* As the real one, room for more slices than there are. */
int nvmlDeviceGetMaxMigDeviceCount(struct device *device, unsigned *count) {
    *count = device->mig ? 7 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *device, unsigned index, struct device **slice) {
    if (index >= (unsigned)device->slices) return NOT_FOUND;
    *slice = device->slice[index];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(struct device *slice, unsigned *id) {
    *id = slice->instance;
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(struct device *slice, unsigned *id) {
    *id = slice->compute;
    return SUCCESS;
}

int nvmlDeviceGetAttributes_v2(struct device *slice, attributes *has) {
    memset(has, 0, sizeof *has);
    has->multiprocessors = slice->sms;
    has->instance_slices = slice->share[0];
    has->compute_slices = slice->share[1];
    has->memory_mb = slice->memory;
    return SUCCESS;
}
