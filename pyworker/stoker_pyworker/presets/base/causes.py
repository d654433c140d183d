"""Causes of failure that the logs of most model servers reveal, the most specific first."""

from stoker_pyworker.server_config import FailureCause

GATED = FailureCause(
    name="gated_model",
    pattern=r"GatedRepoError|access (a )?gated repo|Access to model .* is restricted|must have access to it and be authenticated",
    sentence="the repository is gated: accept its licence on huggingface.co and set HF_TOKEN to a token with access",
    final=True,
    everywhere=True,
)
UNKNOWN_MODEL = FailureCause(
    name="unknown_model",
    pattern=r"RepositoryNotFoundError|Repository Not Found for url|is not a valid model identifier"
    r"|HFValidationError|Repo id must|does not appear to have a file named config\.json|\b(Remote)?EntryNotFoundError"
    r"|failed to open GGUF file|Model path does not exist|model '[^']*' not found|pull model manifest: file does not exist",
    sentence="there is no such model: correct MODEL_NAME, or set HF_TOKEN if the repository is private",
    final=True,
    everywhere=True,
)
GPU_MEMORY = FailureCause(
    name="gpu_memory",
    pattern=r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|cudaMalloc failed: out of memory"
    r"|HIP out of memory|ErrorOutOfDeviceMemory|unable to allocate (CUDA|ROCm|Vulkan)",
    sentence="the GPU's memory is too small: lower MODEL_CONTEXT, take a smaller or quantised model,"
    " or search for offers with more gpu_ram",
    final=True,
)
DRIVER = FailureCause(
    name="driver",
    pattern=r"NVIDIA driver on your system is too old|driver version is insufficient|no kernel image is available"
    r"|unsatisfied condition: cuda|forward compatibility was attempted|CUDA error: the provided PTX"
    r"|system has unsupported display driver",
    sentence="the machine's driver or GPU does not fit the image's CUDA: search for offers with a newer cuda_max_good,"
    " or use an older image",
    final=True,
)
NO_GPU = FailureCause(
    name="no_gpu",
    pattern=r"no NVIDIA driver on your system|No CUDA GPUs are available|no CUDA-capable device is detected"
    r"|Failed to infer device type|libcuda\.so\.1: cannot open",
    sentence="the model server sees no GPU: rent an offer with a GPU, and use an image with CUDA",
    final=True,
)
DISK_FULL = FailureCause(
    name="disk_full",
    pattern=r"No space left on device|Errno 28|disk quota exceeded|not enough free disk space|Not enough disk space",
    sentence="the disk is full: rent with a larger disk (launch_args: --disk), or put MODEL_CACHE on a volume",
    final=True,
)
PORT_TAKEN = FailureCause(
    name="port_taken",
    pattern=r"Address already in use|Errno 98|couldn't bind HTTP server socket|port is not available",
    sentence="another process uses the model server's port: set MODEL_PORT to a free port",
)
ARGUMENTS = FailureCause(
    name="arguments",
    pattern=r"error: unrecognized arguments|error: argument .*:|error: invalid argument:|error: unexpected argument"
    r"|error: the following arguments are required|unknown flag:|unknown shorthand flag"
    r"|\bArgumentValidation\(",
    sentence="the model server does not know an argument: correct MODEL_ARGS, or use another version of the server",
    final=True,
    everywhere=True,
)
NOT_INSTALLED = FailureCause(
    name="not_installed",
    pattern=r"ModuleNotFoundError: No module named|: No module named |error while loading shared libraries"
    r"|ImportError: .* requires the",
    sentence="a part of the model server is not installed: use an image that carries it, or install it before the start",
    final=True,
    everywhere=True,
)
SHARED_MEMORY = FailureCause(
    name="shared_memory",
    pattern=r"insufficient shared memory|insufficient space in /dev/shm|unable to (open|allocate) shared memory|Bus error",
    sentence="the container's shared memory is too small: start it with --shm-size (launch_args) or --ipc=host",
    final=True,
)
NETWORK = FailureCause(
    name="network",
    pattern=r"Temporary failure in name resolution|NameResolutionError|couldn't connect to .*huggingface|Connection timed out"
    r"|Max retries exceeded with url|LocalEntryNotFoundError|We couldn't connect to 'https",
    sentence="the weights could not be downloaded, because the machine's network failed",
)
ACCESS = FailureCause(
    name="token",
    pattern=r"40[13] Client Error|Client error '40[13]|Invalid (user|username or) (token|password)|status code:? 401",
    sentence="the download was refused: set HF_TOKEN to a valid token, and check the spelling of MODEL_NAME",
    final=True,
    everywhere=True,
)

MEMORY = FailureCause(
    name="memory",
    pattern=r"mmap failed: Cannot allocate memory|std::bad_alloc|DefaultCPUAllocator: can't allocate memory"
    r"|DefaultCPUAllocator: not enough memory|^MemoryError",
    sentence="the machine's memory (RAM) is too small for the weights: take a smaller or quantised model,"
    " or search for offers with more cpu_ram",
    final=True,
)

INCOMPLETE_WEIGHTS = FailureCause(
    name="incomplete_weights",
    pattern=r"SafetensorError|not within the file bounds|PytorchStreamReader failed",
    sentence="a file of the weights is incomplete or damaged: remove it from MODEL_CACHE, or copy it again",
    final=True,
)

COMMON = (
    GATED,
    UNKNOWN_MODEL,
    ACCESS,
    DISK_FULL,
    GPU_MEMORY,
    DRIVER,
    NO_GPU,
    SHARED_MEMORY,
    PORT_TAKEN,
    ARGUMENTS,
    NOT_INSTALLED,
    NETWORK,
    MEMORY,
    INCOMPLETE_WEIGHTS,
)

CACHE_MEMORY = FailureCause(
    name="cache_memory",
    pattern=r"No available memory for the cache blocks|KV cache is needed, which is larger than the available"
    r"|is larger than the maximum number of tokens that can be stored in KV cache"
    r"|is less than requested memory for kv|Not enough memory\. Please try",
    sentence="the weights fit, but not the KV cache: lower MODEL_CONTEXT, or search for offers with more gpu_ram",
    final=True,
)
CONTEXT_TOO_LONG = FailureCause(
    name="context_too_long",
    pattern=r"max_model_len \(\d+\) is greater than the derived max_model_len|longer than .*derived context length",
    sentence="MODEL_CONTEXT is longer than the model allows: lower it",
    final=True,
    everywhere=True,
)
UNSUPPORTED_MODEL = FailureCause(
    name="unsupported_model",
    pattern=r"Model architectures .* are not supported|does not recognize this architecture|unknown model architecture"
    r"|Unsupported architecture|is not supported in this version",
    sentence="this version of the model server does not support the model's architecture: use a newer image",
    final=True,
    everywhere=True,
)
GPU_TYPE = FailureCause(
    name="gpu_type",
    pattern=r"only supported on GPUs with compute capability|requires device with capability",
    sentence="the GPU is too old for this precision: add --dtype half to MODEL_ARGS, or search for a newer GPU",
    final=True,
)
GPU_COUNT = FailureCause(
    name="gpu_count",
    pattern=r"must be divisible by tensor|larger than the number of available GPUs|world size .* is larger than",
    sentence="MODEL_GPUS does not fit: it must divide the model's attention heads and not exceed the machine's GPUs",
    final=True,
)
"""Causes of servers that load Hugging Face models onto GPUs."""

TRANSFORMERS = (CACHE_MEMORY, CONTEXT_TOO_LONG, UNSUPPORTED_MODEL, GPU_TYPE, GPU_COUNT)
