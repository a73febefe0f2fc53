// Stands in for the header of this name that kernel-builder generates for the Hub.
#pragma once

#include <torch/library.h>

// Expand NAME (the operator namespace, given by the build) before the macros paste it.
#define TORCH_LIBRARY_EXPAND(NAME, MODULE) TORCH_LIBRARY(NAME, MODULE)
#define TORCH_LIBRARY_IMPL_EXPAND(NAME, KEY, MODULE) TORCH_LIBRARY_IMPL(NAME, KEY, MODULE)

// Loaded with torch.ops.load_library, not imported: no Python headers.
#define REGISTER_EXTENSION(NAME)
