"""`python -m llama_cpp.server` without repacked weights: some virtual machines forbid the AMX tiles that they use."""

import runpy

from llama_cpp import llama_cpp

_default_params = llama_cpp.llama_model_default_params


def _without_extra_buffers():
    params = _default_params()
    params.use_extra_bufts = False
    return params


llama_cpp.llama_model_default_params = _without_extra_buffers
runpy.run_module("llama_cpp.server", run_name="__main__")
