// tokcask._core: the C++ library as Python sees it.
//
// Why nanobind: an array that knows its owner, read-only, costs about 0.3 us to hand out, and the zero-copy
// promise rests on just that; instances are small; stubs are made from the compiled module, so types and
// docstrings have one source. The library never includes a binding header: everything here is written against
// include/tokcask/ and could be thrown away without touching lib/.
#include <nanobind/nanobind.h>

#include <string_view>

#include "cache.h"
#include "cli.h"
#include "collate.h"
#include "dataset.h"
#include "entries.h"
#include "errors.h"
#include "key.h"
#include "merge.h"
#include "tokens.h"

NB_MODULE(_core, module) {
  namespace python = tokcask::python;
  module.doc() = "The compiled part of tokcask. Import the names from tokcask instead.";
  module.attr("__version__") = TOKCASK_VERSION;
  // What is alive when an interpreter ends is no leak: a dataset in a worker that torch ends, for one.
  nanobind::set_leak_warnings(false);
  python::register_errors();
  python::bind_key(module);
  python::bind_tokens(module);
  python::bind_cache(module);
  python::bind_collate(module);
  python::bind_dataset(module);
  python::bind_merge(module);
  python::bind_entries(module);
  python::bind_cli(module);

  // Pickles and messages shall name the public place. When the stub is made, the module is not in its
  // package, and its classes must count as its own.
  if (std::string_view(PyModule_GetName(module.ptr())) == "tokcask._core") {
    for (const char* name :
         {"CacheKey", "CachedTokens", "TokenizedCache", "VerifyReport", "Damage", "MergeReport"}) {
      module.attr(name).attr("__module__") = "tokcask";
    }
  }
}
