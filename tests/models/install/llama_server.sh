#!/bin/sh
# Builds llama-server from the sources of llama-cpp-python against the libraries of its wheel: bin/llama-server
set -e
models=$1
python=$models/bin/python
version=$("$python" -c 'import importlib.metadata as m; print(m.version("llama-cpp-python"))')
sources=$models/src
if [ ! -d "$sources" ]; then
    "$python" -m pip download --quiet --no-deps --no-binary :all: --dest "$models/download" \
        "llama-cpp-python==$version"
    mkdir -p "$sources.part"
    tar -xzf "$models"/download/llama_cpp_python-*.tar.gz -C "$sources.part" --strip-components 1
    mv "$sources.part" "$sources"
fi
llama=$sources/vendor/llama.cpp
libraries=$("$python" -c 'import llama_cpp, pathlib; print(pathlib.Path(llama_cpp.__file__).parents[1] / "lib")')
objects=$models/objects
mkdir -p "$objects/ui"
cmake -DUI_SOURCE_DIR="$llama/tools/ui" -DUI_BINARY_DIR="$objects/ui" -DLLAMA_SOURCE_DIR="$llama" \
    -DHF_ENABLED=OFF -DBUILD_UI=OFF -DLLAMA_UI_GZIP=OFF -P "$llama/scripts/ui-assets.cmake"
for source in "$llama/vendor/cpp-httplib/httplib.cpp" "$objects/ui/ui.cpp" "$llama"/tools/server/*.cpp; do
    object=$objects/$(basename "$source" .cpp).o
    [ -f "$object" ] && continue
    echo "compiling $(basename "$source")"
    g++ -std=c++17 -O1 -w -DNDEBUG -DGGML_SHARED -DLLAMA_SHARED -DGGML_BACKEND_SHARED \
        -DCPPHTTPLIB_LISTEN_BACKLOG=512 -DCPPHTTPLIB_TCP_NODELAY=1 \
        -I"$llama/include" -I"$llama/ggml/include" -I"$llama/common" -I"$llama/vendor" -I"$llama/tools/mtmd" \
        -I"$llama/tools/server" -I"$llama" -I"$objects/ui" -c "$source" -o "$object.part"
    mv "$object.part" "$object"
done
g++ -o "$models/bin/llama-server" "$objects"/*.o -L"$libraries" -Wl,-rpath,"$libraries" \
    -lllama-common -lmtmd -lllama -lggml -lggml-base -lggml-cpu -lpthread
