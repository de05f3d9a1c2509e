#include "cache.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <typeinfo>
#include <vector>

#include "arguments.h"
#include "cache_docs.h"
#include "tokens.h"

namespace tokcask::python {
namespace {

// The items of a pickle's state.
constexpr std::size_t kStateItems = 11;

nb::object to_python(std::optional<TokenView> view) {
  if (!view) return nb::none();
  return nb::cast(CachedTokens(std::move(*view)));
}

nb::str to_python(std::string_view text) { return nb::str(text.data(), text.size()); }

constexpr std::array<std::string_view, 3> kVerifyPolicies = {"off", "first", "always"};  // by VerifyPolicy

VerifyPolicy to_verify_policy(std::string_view name) {
  const auto* const found = std::find(kVerifyPolicies.begin(), kVerifyPolicies.end(), name);
  if (found == kVerifyPolicies.end()) throw nb::value_error("verify must be 'off', 'first' or 'always'");
  return static_cast<VerifyPolicy>(found - kVerifyPolicies.begin());
}

Options to_options(nb::handle max_bytes, bool shrink, bool protect_run, bool read_only, double lock_timeout,
                   nb::handle batch_bytes, double batch_age, bool populate, bool derive_lengths,
                   bool allow_network_filesystem, nb::handle run_id, std::string_view verify) {
  const auto milliseconds = [](double seconds, const char* name) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(to_duration(seconds, name));
  };
  Options options;
  if (!max_bytes.is_none())
    options.max_bytes = static_cast<std::uint64_t>(to_integer(max_bytes, "max_bytes", 0));
  options.shrink = shrink;
  options.protect_run = protect_run;
  options.read_only = read_only;
  options.lock_timeout = milliseconds(lock_timeout, "lock_timeout");
  options.batch_bytes = static_cast<std::uint64_t>(to_integer(batch_bytes, "batch_bytes", 0));
  options.batch_age = milliseconds(batch_age, "batch_age");
  options.populate = populate;
  options.derive_lengths = derive_lengths;
  options.allow_network_filesystem = allow_network_filesystem;
  options.run_id = to_run_id(run_id);
  options.verify = to_verify_policy(verify);
  return options;
}

std::unique_ptr<Handle> open(nb::handle root, nb::handle max_bytes, bool shrink, bool protect_run,
                             bool read_only, double lock_timeout, nb::handle batch_bytes, double batch_age,
                             bool populate, bool derive_lengths, bool allow_network_filesystem,
                             nb::handle run_id, std::string_view verify) {
  return std::make_unique<Handle>(OpenArguments{
      .path = std::filesystem::absolute(to_path(root, "root")).string(),
      .options = to_options(max_bytes, shrink, protect_run, read_only, lock_timeout, batch_bytes, batch_age,
                            populate, derive_lengths, allow_network_filesystem, run_id, verify),
  });
}

// The item of an iterable as what it must be; the error says which one is not.
template <typename T>
const T& item_as(nb::handle item, const char* function, std::size_t index, const char* name) {
  T* result = nullptr;
  if (!nb::try_cast(item, result, /*convert=*/false) || result == nullptr) {
    throw nb::type_error(
        fmt::format("{}: item {} holds {}, not a {}", function, index, kind_of(item), name).c_str());
  }
  return *result;
}

nb::object get(Handle& self, const CacheKey& key) {
  return to_python(self.with_gil([&](TokenizedCache& store) { return store.get(key); }));
}

nb::list get_many(Handle& self, nb::iterable keys) {
  std::vector<CacheKey> wanted;
  for (const nb::handle key : keys)
    wanted.push_back(item_as<CacheKey>(key, "get_many", wanted.size(), "CacheKey"));
  auto views = self.without_gil([&](TokenizedCache& store) { return store.get_many(wanted); });
  nb::list found;
  for (auto& view : views) found.append(to_python(std::move(view)));
  return found;
}

std::optional<std::int32_t> to_sequence_len(nb::handle value) {
  if (value.is_none()) return std::nullopt;
  const std::int64_t given = to_integer(value, "sequence_len", 1);
  if (given > CacheKey::kMaxSequenceLen) throw nb::value_error("sequence_len is greater than 2**31 - 1");
  return static_cast<std::int32_t>(given);
}

nb::list keys(Handle& self, nb::handle tokenizer_sha, nb::handle sequence_len) {
  std::optional<std::string> sha;
  if (!tokenizer_sha.is_none()) sha = to_text(tokenizer_sha, "tokenizer_sha");
  const std::optional<std::int32_t> length = to_sequence_len(sequence_len);
  nb::list found;
  for (CacheKey& key : self.without_gil([&](TokenizedCache& store) { return store.keys(sha, length); }))
    found.append(nb::cast(std::move(key)));
  return found;
}

void put(Handle& self, const CacheKey& key, const CachedTokens& tokens) {
  const CheckedTokens checked(tokens);
  self.without_gil([&](TokenizedCache& store) { store.put(key, checked.tokens()); });
}

bool try_put(Handle& self, const CacheKey& key, const CachedTokens& tokens) {
  const CheckedTokens checked(tokens);
  return self.without_gil([&](TokenizedCache& store) { return store.try_put(key, checked.tokens()); });
}

void put_many(Handle& self, nb::iterable entries) {
  std::vector<std::pair<CacheKey, Tokens>> checked;
  std::vector<CheckedTokens> owners;
  for (const nb::handle entry : entries) {
    const std::size_t index = owners.size();
    if (!nb::isinstance<nb::tuple>(entry) || nb::len(entry) != 2) {
      throw nb::type_error(fmt::format("put_many: item {} is not a (key, tokens) tuple", index).c_str());
    }
    const nb::object key = entry[0];
    const nb::object tokens = entry[1];
    owners.emplace_back(item_as<CachedTokens>(tokens, "put_many", index, "CachedTokens"));
    checked.emplace_back(item_as<CacheKey>(key, "put_many", index, "CacheKey"), owners.back().tokens());
  }
  self.without_gil([&](TokenizedCache& store) { store.put_many(checked); });
}

std::uint64_t prune(Handle& self, nb::handle older_than_seconds, nb::handle tokenizer_sha,
                    nb::handle sequence_len, nb::handle keep_last_runs, bool dry_run) {
  PruneOptions options;
  if (!older_than_seconds.is_none()) {
    double seconds = 0.0;
    if (!nb::try_cast(older_than_seconds, seconds)) {
      throw nb::type_error(
          fmt::format("older_than_seconds is {}, not a number", kind_of(older_than_seconds)).c_str());
    }
    options.older_than = to_duration(seconds, "older_than_seconds");
  }
  if (!tokenizer_sha.is_none()) options.tokenizer_sha = to_text(tokenizer_sha, "tokenizer_sha");
  options.sequence_len = to_sequence_len(sequence_len);
  if (!keep_last_runs.is_none()) {
    constexpr std::int64_t kMost = std::numeric_limits<unsigned>::max();
    options.keep_last_runs =
        static_cast<unsigned>(std::min(to_integer(keep_last_runs, "keep_last_runs", 1), kMost));
  }
  options.dry_run = dry_run;
  return self.without_gil([&](TokenizedCache& store) { return store.prune(options).removed; });
}

nb::dict compact(Handle& self) {
  const CompactReport done = self.without_gil([](TokenizedCache& store) { return store.compact(); });
  nb::dict report;
  report["bytes_before"] = done.bytes_before;
  report["bytes_after"] = done.bytes_after;
  report["entries"] = done.entries;
  report["damaged"] = done.damaged;
  return report;
}

nb::dict copy(Handle& self, nb::handle to) {
  const std::filesystem::path directory = to_path(to, "to");
  const CopyReport made = self.without_gil([&](TokenizedCache& store) { return store.copy(directory); });
  nb::dict report;
  report["bytes"] = made.bytes;
  report["entries"] = made.entries;
  report["damaged"] = made.damaged;
  return report;
}

void declare_tokenizer(Handle& self, nb::handle tokenizer_sha, bool cuts_at_length, bool cuts_to_prefix) {
  const std::string sha(to_text(tokenizer_sha, "tokenizer_sha"));
  self.without_gil([&](TokenizedCache& store) {
    store.declare_tokenizer(sha, {.cuts_at_length = cuts_at_length, .cuts_to_prefix = cuts_to_prefix});
  });
}

std::optional<std::string> tokenizer_of_content(Handle& self, const std::string& content) {
  return self.without_gil([&](TokenizedCache& store) { return store.tokenizer_of_file(content, {}); });
}

void remember_tokenizer(Handle& self, const std::string& content, const std::string& sha) {
  self.without_gil([&](TokenizedCache& store) { store.remember_tokenizer_file(content, {}, sha); });
}

nb::dict miss_reasons(Handle& self) {
  const auto counts = self.with_gil([](TokenizedCache& store) { return store.miss_reasons(); });
  nb::dict reasons;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    reasons[to_python(to_string(static_cast<MissReason>(i)))] = counts[i];
  }
  return reasons;
}

nb::list related(const Explanation& self) {
  nb::list entries;
  for (const EntryInfo& info : self.related) {
    nb::dict entry;
    entry["key"] = nb::cast(info.key);
    entry["tokens"] = info.tokens;
    entry["created_ns"] = info.created_ns;
    entry["last_access_ns"] = info.last_access_ns;
    entry["bytes"] = info.bytes;
    entries.append(entry);
  }
  return entries;
}

void save_manifest(Handle& self, nb::handle tokenizer_sha) {
  const std::string sha = tokenizer_sha.is_none() ? "" : std::string(to_text(tokenizer_sha, "tokenizer_sha"));
  self.without_gil([&](TokenizedCache& store) { store.save_manifest(sha); });
}

nb::dict to_dict(const RunFigures& run) {
  nb::dict figures;
  figures["run_id"] = run.run_id;
  figures["started_ns"] = run.started_ns;
  figures["ended_ns"] = run.ended_ns;
  figures["state"] = to_python(to_string(run.state));
  figures["last_active_ns"] = run.last_active_ns;
  // It may be cut in the middle of a character, or damaged.
  figures["tokenizer_sha"] = nb::steal(PyUnicode_DecodeUTF8(
      run.tokenizer_sha.data(), static_cast<Py_ssize_t>(run.tokenizer_sha.size()), "replace"));
  figures["sequence_len"] = run.sequence_len;
  figures["several_tokenizers"] = run.several_tokenizers;
  figures["hits"] = run.hits;
  figures["derived"] = run.derived;
  figures["misses"] = run.misses;
  figures["hit_rate"] = run.hit_rate();
  figures["puts"] = run.puts;
  figures["declined"] = run.declined;
  figures["evicted"] = run.evicted;
  figures["tokenize_seconds"] = run.tokenize_seconds;
  figures["bytes_after"] = run.bytes_after;
  return figures;
}

nb::dict stats(Handle& self) {
  const Stats stats = self.stats();
  nb::dict figures;
  figures["entry_count"] = stats.entry_count;
  figures["total_bytes"] = stats.total_bytes;
  figures["payload_bytes"] = stats.payload_bytes;
  figures["file_bytes"] = stats.file_bytes;
  figures["max_bytes"] = stats.max_bytes;
  figures["pending"] = stats.pending;
  figures["not_taken"] = stats.not_taken;
  figures["run"] = to_dict(stats.run);
  figures["last_run"] = to_dict(stats.last_run);
  figures["tokenizer_sha"] = stats.tokenizer_sha;
  return figures;
}

nb::list runs(Handle& self) {
  nb::list found;
  for (const RunFigures& run : self.without_gil([](TokenizedCache& store) { return store.runs(); }))
    found.append(to_dict(run));
  return found;
}

template <typename Bin>
nb::dict amount_of(const Bin& bin) {
  nb::dict amount;
  amount["entries"] = bin.entries;
  amount["bytes"] = bin.bytes;
  return amount;
}

nb::dict to_dict(const SurveyGroup& group) {
  nb::dict figures;
  figures["tokenizer_sha"] = group.tokenizer_sha;
  figures["sequence_len"] = group.sequence_len;
  figures["entries"] = group.entries;
  figures["tokens"] = group.tokens;
  figures["bytes"] = group.bytes;
  figures["first_stored_ns"] = group.first_stored_ns;
  figures["last_stored_ns"] = group.last_stored_ns;
  return figures;
}

nb::dict survey(Handle& self) {
  const StoreSurvey survey = self.without_gil([](TokenizedCache& store) { return store.survey(); });
  nb::list groups;
  for (const SurveyGroup& group : survey.groups) groups.append(to_dict(group));
  nb::list lengths;
  for (const LengthBin& bin : survey.lengths) {
    nb::dict amount = amount_of(bin);
    amount["up_to"] = bin.up_to;
    lengths.append(amount);
  }
  nb::list ages;
  for (const AgeBin& bin : survey.last_access) {
    nb::dict amount = amount_of(bin);
    amount["under_seconds"] =
        bin.under_seconds == AgeBin::kNoLimit ? nb::none() : nb::cast(bin.under_seconds);
    ages.append(amount);
  }
  nb::dict figures;
  figures["taken_ns"] = survey.taken_ns;
  figures["groups"] = groups;
  figures["lengths"] = lengths;
  figures["last_access"] = ages;
  figures["last_access_unknown"] = amount_of(survey.last_access_unknown);
  return figures;
}

nb::object represent(Handle& self) {
  return nb::str("<tokcask.TokenizedCache {!r}{}{}>")
      .format(self.arguments().path, self.arguments().options.read_only ? " read-only" : "",
              self.closed() ? " closed" : "");
}

nb::tuple get_state(Handle& self) {
  if (self.closed()) throw nb::value_error("a closed cache cannot be pickled");
  const Options& options = self.arguments().options;
  const auto seconds = [](std::chrono::milliseconds time) {
    return std::chrono::duration<double>(time).count();
  };
  return nb::make_tuple(
      nb::bytes(self.arguments().path.data(), self.arguments().path.size()),
      options.max_bytes ? nb::object(nb::int_(*options.max_bytes)) : nb::none(), options.read_only,
      seconds(options.lock_timeout), options.batch_bytes, seconds(options.batch_age),
      options.allow_network_filesystem, options.derive_lengths, self.run_id(),
      to_python(kVerifyPolicies.at(static_cast<std::size_t>(options.verify))), options.protect_run);
}

OpenArguments arguments_of(nb::handle state) {
  if (!nb::isinstance<nb::tuple>(state) || nb::len(state) != kStateItems) {
    throw nb::value_error("not the state of a TokenizedCache; it was pickled by another version of tokcask");
  }
  try {
    return {
        .path = to_path(state[0], "root"),
        .options = to_options(state[1], false, nb::cast<bool>(state[10]), nb::cast<bool>(state[2]),
                              nb::cast<double>(state[3]), state[4], nb::cast<double>(state[5]), false,
                              nb::cast<bool>(state[7]), nb::cast<bool>(state[6]), state[8],
                              nb::cast<std::string_view>(state[9])),
    };
  } catch (const std::bad_cast&) {  // an item of another type
  } catch (const nb::builtin_exception& error) {
    if (error.type() == nb::exception_type::value_error) throw;
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  throw nb::value_error(
      "the state of a TokenizedCache has an item of another type; it was pickled by another "
      "version of tokcask");
}

void set_state(Handle* self, nb::handle state) { new (self) Handle(arguments_of(state)); }

void refuse_construction(Handle* /*self*/, const nb::args& /*arguments*/, const nb::kwargs& /*named*/) {
  throw nb::type_error("a TokenizedCache is made by TokenizedCache.open(root)");
}

void bind_explanation(nb::module_& module) {
  nb::class_<Explanation>(module, "Explanation", nb::is_final(), docs::kExplanation)
      .def_ro("found", &Explanation::found, "Whether a look-up would find it.")
      .def_ro("derived", &Explanation::derived, "Whether it would in an entry of another sequence length.")
      .def_prop_ro(
          "reason",
          [](const Explanation& self) -> nb::object {
            if (self.found) return nb::none();
            return to_python(to_string(self.reason));
          },
          nb::sig("def reason(self) -> str | None"),
          "None when found; else one of 'never stored', 'other tokenizer', 'other length', 'evicted', "
          "'pruned',\n"
          "'declined', 'cleared', 'damaged'.")
      .def_ro("text", &Explanation::text, "The same for people.")
      .def_ro("when_ns", &Explanation::when_ns,
              "When it was stored, evicted, pruned, declined or cleared, ns since the epoch; 0: not known.")
      .def_ro("run_id", &Explanation::run_id, "Of the run that did that to it; 0: not known.")
      .def_prop_ro(
          "related", related, nb::sig("def related(self) -> list[dict[str, typing.Any]]"),
          "Entries of the same section under other keys: key, tokens, created_ns, last_access_ns, bytes.")
      .def("__str__", [](const Explanation& self) { return self.text; })
      .def("__repr__",
           [](const Explanation& self) { return nb::str("<tokcask.Explanation {!r}>").format(self.text); });
}

void bind_reports(nb::module_& module) {
  nb::class_<Damage>(module, "Damage", nb::is_final(), docs::kDamage)
      .def_ro("key", &Damage::key,
              "The entry's canonical key, or '' when the damage is not inside one record.")
      .def_ro("reason", &Damage::reason, "What is wrong.")
      .def("__repr__", [](const Damage& self) {
        return nb::str("Damage(key={!r}, reason={!r})").format(self.key, self.reason);
      });
  nb::class_<VerifyReport>(module, "VerifyReport", nb::is_final(), docs::kVerifyReport)
      .def_ro("records", &VerifyReport::records, "Records looked at.")
      .def_ro("damaged", &VerifyReport::damaged, "Of these, how many would be a miss.")
      .def_ro("structure_ok", &VerifyReport::structure_ok, "Whether pages, counts and tables agree.")
      .def_ro("findings", &VerifyReport::findings, "The first 100 findings; the counts are complete.")
      .def_prop_ro(
          "ok",
          [](const VerifyReport& self) { return (self.structure_ok && self.damaged == 0) || self.repaired; },
          "Whether the store is whole: nothing was found, or it was repaired.")
      .def_ro("repaired", &VerifyReport::repaired, "Whether damage was found and the store is whole now.")
      .def_ro("saved", &VerifyReport::saved, "Entries that a repaired store has.")
      .def_ro("lost", &VerifyReport::lost, "Entries that a repair could not save, as far as can be told.")
      .def_ro("kept_as", &VerifyReport::kept_as,
              "The name of the damaged data file, where a repair replaced it; else ''.")
      .def("__repr__", [](const VerifyReport& self) {
        return nb::str("VerifyReport(records={}, damaged={}, structure_ok={})")
            .format(self.records, self.damaged, self.structure_ok);
      });
}

void bind_access(nb::class_<Handle>& cache) {
  cache
      .def_static("open", open, nb::arg("root"), nb::kw_only(), nb::arg("max_bytes") = nb::none(),
                  nb::arg("shrink") = false, nb::arg("protect_run") = true, nb::arg("read_only") = false,
                  nb::arg("lock_timeout") = 60.0, nb::arg("batch_bytes") = std::uint64_t{64} << 20,
                  nb::arg("batch_age") = 1.0, nb::arg("populate") = false, nb::arg("derive_lengths") = true,
                  nb::arg("allow_network_filesystem") = false, nb::arg("run_id") = nb::none(),
                  nb::arg("verify") = "first",
                  nb::sig("def open(root: str | os.PathLike[str], *, max_bytes: int | None = None, "
                          "shrink: bool = False, protect_run: bool = True, read_only: bool = False, "
                          "lock_timeout: float = 60.0, batch_bytes: int = 67108864, "
                          "batch_age: float = 1.0, populate: bool = False, derive_lengths: bool = True, "
                          "allow_network_filesystem: bool = False, run_id: int | None = None, "
                          "verify: str = 'first') -> TokenizedCache"),
                  docs::kOpen)
      .def("get", get, nb::arg("key"), nb::sig("def get(self, key: CacheKey) -> CachedTokens | None"),
           docs::kGet)
      .def("get_many", get_many, nb::arg("keys"),
           nb::sig(
               "def get_many(self, keys: collections.abc.Iterable[CacheKey]) -> list[CachedTokens | None]"),
           docs::kGetMany)
      .def("keys", keys, nb::kw_only(), nb::arg("tokenizer_sha") = nb::none(),
           nb::arg("sequence_len") = nb::none(),
           nb::sig("def keys(self, *, tokenizer_sha: str | None = None, sequence_len: int | None = None) -> "
                   "list[CacheKey]"),
           docs::kKeys)
      .def("put", put, nb::arg("key"), nb::arg("tokens"), docs::kPut)
      .def("try_put", try_put, nb::arg("key"), nb::arg("tokens"), docs::kTryPut)
      .def("put_many", put_many, nb::arg("entries"),
           nb::sig("def put_many(self, entries: "
                   "collections.abc.Iterable[tuple[CacheKey, CachedTokens]]) -> None"),
           docs::kPutMany)
      .def(
          "flush", [](Handle& self) { self.without_gil([](TokenizedCache& store) { store.flush(); }); },
          docs::kFlush)
      .def("close", &Handle::close, docs::kClose)
      .def(
          "__enter__", [](nb::handle_t<Handle> self) { return nb::borrow(self); },
          nb::sig("def __enter__(self) -> TokenizedCache"))
      .def(
          "__exit__", [](Handle& self, const nb::args&) { self.close(); },
          nb::sig("def __exit__(self, *exception: object) -> None"))
      .def("__repr__", represent, nb::sig("def __repr__(self) -> str"))
      .def("__getstate__", get_state, nb::sig("def __getstate__(self) -> tuple[object, ...]"))
      .def("__init__", refuse_construction,
           nb::sig("def __init__(self, *_: typing.Never, **__: typing.Never) -> None"))
      .def("__setstate__", set_state, nb::arg("state").none(),
           nb::sig("def __setstate__(self, state: tuple[object, ...], /) -> None"));
}

void bind_care(nb::class_<Handle>& cache) {
  cache
      .def(
          "prune", prune, nb::arg("older_than_seconds") = nb::none(), nb::kw_only(),
          nb::arg("tokenizer_sha") = nb::none(), nb::arg("sequence_len") = nb::none(),
          nb::arg("keep_last_runs") = nb::none(), nb::arg("dry_run") = false,
          nb::sig(
              "def prune(self, older_than_seconds: float | None = None, *, tokenizer_sha: str | None = None, "
              "sequence_len: int | None = None, keep_last_runs: int | None = None, dry_run: bool = False) "
              "-> int"),
          docs::kPrune)
      .def("compact", compact, nb::sig("def compact(self) -> dict[str, int]"), docs::kCompact)
      .def("copy", copy, nb::arg("to"),
           nb::sig("def copy(self, to: str | os.PathLike[str]) -> dict[str, int]"), docs::kCopy)
      .def(
          "clear",
          [](Handle& self) { return self.without_gil([](TokenizedCache& store) { return store.clear(); }); },
          docs::kClear)
      .def("declare_tokenizer", declare_tokenizer, nb::arg("tokenizer_sha"), nb::kw_only(),
           nb::arg("cuts_at_length"), nb::arg("cuts_to_prefix"),
           nb::sig("def declare_tokenizer(self, tokenizer_sha: str, *, cuts_at_length: bool, cuts_to_prefix: "
                   "bool) -> None"),
           docs::kDeclareTokenizer)
      .def("_tokenizer_of_content", tokenizer_of_content, nb::arg("content"))
      .def("_remember_tokenizer", remember_tokenizer, nb::arg("content"), nb::arg("tokenizer_sha"))
      .def(
          "explain",
          [](Handle& self, const CacheKey& key) {
            return self.without_gil([&](TokenizedCache& store) { return store.explain(key); });
          },
          nb::arg("key"), docs::kExplain)
      .def("miss_reasons", miss_reasons, nb::sig("def miss_reasons(self) -> dict[str, int]"),
           docs::kMissReasons)
      .def(
          "miss_summary",
          [](Handle& self) {
            return self.without_gil([](TokenizedCache& store) { return store.miss_summary(); });
          },
          docs::kMissSummary)
      .def("save_manifest", save_manifest, nb::arg("tokenizer_sha") = nb::none(),
           nb::sig("def save_manifest(self, tokenizer_sha: str | None = None) -> None"), docs::kSaveManifest)
      .def(
          "verify",
          [](Handle& self, bool repair) {
            return self.without_gil([&](TokenizedCache& store) { return store.verify({.repair = repair}); });
          },
          nb::kw_only(), nb::arg("repair") = false, docs::kVerify)
      .def("stats", stats, nb::sig("def stats(self) -> dict[str, typing.Any]"), docs::kStats)
      .def("runs", runs, nb::sig("def runs(self) -> list[dict[str, typing.Any]]"), docs::kRuns)
      .def("survey", survey, nb::sig("def survey(self) -> dict[str, typing.Any]"), docs::kSurvey)
      .def(
          "add_tokenize_seconds",
          [](Handle& self, double seconds) {
            const std::chrono::duration<double> time = to_duration(seconds, "seconds");
            self.with_gil([&](TokenizedCache& store) { store.add_tokenize_seconds(time.count()); });
          },
          nb::arg("seconds"), docs::kAddTokenizeSeconds);
}

void bind_figures(nb::class_<Handle>& cache) {
  cache.def_prop_ro("root", &Handle::root, "The store's directory.")
      .def_prop_ro("closed", &Handle::closed, "Whether close() has been called.")
      .def_prop_ro(
          "read_only", [](const Handle& self) { return self.arguments().options.read_only; },
          "Whether it was opened with read_only=True.")
      .def_prop_ro(
          "entry_count", [](Handle& self) { return self.stats().entry_count; },
          "Entries: those committed and those pending.")
      .def_prop_ro(
          "total_bytes", [](Handle& self) { return self.stats().total_bytes; },
          "Bytes of the pages that entries occupy, or will when they are committed.")
      .def_prop_ro(
          "file_bytes", [](Handle& self) { return self.stats().file_bytes; }, "Size of data.mdb in bytes.")
      .def_prop_ro(
          "max_bytes", [](Handle& self) { return self.stats().max_bytes; },
          "What file_bytes never exceeds on behalf of this handle.")
      .def_prop_ro(
          "hits", [](Handle& self) { return self.stats().run.hits; },
          "Look-ups through this handle that found an entry.")
      .def_prop_ro(
          "misses", [](Handle& self) { return self.stats().run.misses; },
          "Look-ups through this handle that found none.")
      .def_prop_ro(
          "hit_rate", [](Handle& self) { return self.stats().run.hit_rate(); },
          "hits / (hits + misses) of this handle, 0.0 before the first look-up.")
      .def_prop_ro(
          "run_id", &Handle::run_id,
          "The run this handle belongs to, for open(run_id=...) in another process; 0 if it has none.");
}

}  // namespace

void bind_cache(nb::module_& module) {
  bind_reports(module);
  bind_explanation(module);
  nb::class_<Handle> cache(module, "TokenizedCache", nb::is_final(), nb::is_weak_referenceable(),
                           docs::kTokenizedCache);
  bind_access(cache);
  bind_care(cache);
  bind_figures(cache);
}

}  // namespace tokcask::python
