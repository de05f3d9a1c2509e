// What help() says about TokenizedCache.
#pragma once

namespace tokcask::python::docs {

inline constexpr const char* kTokenizedCache =
    R"(A store of tokenized text: a directory with one memory-mapped file.

    with tokcask.TokenizedCache.open("tokens") as cache:
        key = tokcask.CacheKey(tokcask.section_id(text), tokcask.tokenizer_sha256(tokenizer), 2048)
        tokens = cache.get(key)
        if tokens is None:
            made = tokenizer(text, truncation=True, padding=False, max_length=2048)
            tokens = tokcask.CachedTokens(made["input_ids"], made["attention_mask"])
            cache.put(key, tokens)

Threads: all methods may be called from any thread at any time; those that may wait release the GIL.
Processes: any number may have a store open, to read and to write. After os.fork() the child's first call
reopens the store; what was pending at the fork belongs to the parent. Pickling takes the path and the
options, and unpickling opens the store again. Both belong to the run of the handle they come from.
Lifetime: what get() returned stays valid after close().
Errors: ValueError for a bad argument and for use after close(), OSError and its kinds FileNotFoundError,
BusyError, DamagedError, ReadOnlyError and UnsupportedError for what the system or the store refuses. A miss
is no error, and a damaged entry is a miss.
Ctrl-C: what waits for the write lock or for a commit raises KeyboardInterrupt; what was pending still is, and the
next flush() commits it. close() then has to be called again.
Messages, e.g. that a damaged store was set aside, go to logging.getLogger("tokcask").)";

inline constexpr const char* kOpen = R"(Opens the store in directory root, or creates it.

max_bytes       hard cap on the size of the file; oldest entries make room, those of this run excepted. None: what the
                store was last given, 10 GiB for a new one. A larger file is compacted when it is opened; where
                that does not do, it is a ValueError and nothing is removed. From 256 KiB to 1 TiB
shrink          where what is stored does not fit max_bytes, remove the entries used least lately until it does
protect_run     protect what this handle's run uses from eviction, until it ends. False: plain LRU, for a process
                that never ends, as a server, where else new entries would be declined for ever. While another
                run that protects is alive, what anybody used since that began stays
read_only       open an existing store and never take its write lock; FileNotFoundError if it is absent
lock_timeout    seconds to wait for another process's write lock before BusyError
batch_bytes     puts are committed when this many bytes are pending: what a kill can cost
batch_age       ... or when the oldest pending put is this many seconds old
derive_lengths  serve a key without an entry from one of another sequence length, where that is proved
populate        have the whole file read into the page cache in the background, in file order
allow_network_filesystem
                network file systems do not share maps and locks between hosts, so they are refused
run_id          belong to this run, if it is alive, rather than begin one: for processes that a launcher starts;
                forked and unpickled handles know theirs
verify          when a record's checksum is compared: 'first', when a process looks it up for the first time;
                'always'; or 'off'

A store that is damaged, empty or of another version is renamed to <name>.set-aside-<n>, with a warning, and a
new one is made of every entry that is intact. Raises ValueError, FileNotFoundError, BusyError, UnsupportedError
or OSError.)";

inline constexpr const char* kGet =
    "The entry under key, or None. Never raises for what is in the store. Counts a hit or a miss and records "
    "the\n"
    "access. About a microsecond.";

inline constexpr const char* kGetMany =
    "One result per key, in the order given: CachedTokens or None. All are looked up in one snapshot, which "
    "is\n"
    "faster than as many calls of get().";

inline constexpr const char* kKeys =
    R"(The keys of all committed entries in key order, or of those of one tokenizer, one sequence length, or both.

What tokcask.torch.TokenDataset takes. Tokens are not touched.)";

inline constexpr const char* kPut =
    R"(Stores a copy of tokens under key; an entry of the same key is replaced, and one of the same tokens stays.

Visible to this process at once, to others after the next commit. Arrays of any integer dtype are taken, and
lists; ValueError, and nothing is stored, for arrays that are not 1-D, not of integers, of different lengths,
or that hold a value outside int32, and for more ids than the key's sequence_len. May wait when commits are behind. When only entries of this run could make
room, the put is declined: counted in stats()["run"]["declined"], and a warning explains it once.)";

inline constexpr const char* kTryPut =
    R"(As put(), but never waits: not for the write lock, for a commit, or for room in the batch.

Returns whether the entry is pending now. If not, it is counted in stats()["not_taken"].)";

inline constexpr const char* kPutMany =
    "As put() for each (key, tokens) of an iterable. All are checked before any is stored: when one is "
    "refused,\n"
    "none of this call is stored. What was put before stays.";

inline constexpr const char* kFlush =
    "Commits all pending puts and access times; returns when they would survive a power loss.";

inline constexpr const char* kClose =
    "Flushes, ends the run and releases the store. Closing twice is allowed, by several threads too. Tokens "
    "that were returned stay "
    "valid,\n"
    "and the figures can still be read.";

inline constexpr const char* kPrune =
    R"(Removes the entries of which all holds that is given; returns how many.

older_than_seconds  the last access is longer ago than this
tokenizer_sha       the whole sha of the tokenizer they were made with
sequence_len        the sequence length they were made for
keep_last_runs      not used since the start of the oldest of the newest so many runs; none go while there are fewer
dry_run             only count

Entries of the current run go too. At least one must be given, or it is a ValueError. The file keeps its size, and
later entries use the space; compact() gives it back.)";

inline constexpr const char* kCompact =
    R"(Writes the store into a new file without gaps, and puts that file in the place of the old one.

Needs the store alone: BusyError, which says who has it, while another process, or another handle or data set of
this process, has the store open. Arrays that were returned stay valid; the space of the old file returns with the
last of them. It needs the space of the new file beside the old one. Returns a dict: bytes_before, bytes_after,
entries, and damaged, the records left out because they could not have been served. OSError, and the store as it
was, when there is not space enough.)";

inline constexpr const char* kCopy =
    R"(Writes what is committed into a new store in the directory to, which must not hold a store.

For a backup of a store that is in use: one snapshot, without gaps, while others read and write. (Copying the files
of a live store by other means gives no whole store.) What this handle has pending is committed before. Returns a
dict: bytes, entries, and damaged, the records left out because they could not have been served. ValueError when to
holds a store.)";

inline constexpr const char* kClear =
    "Removes every entry, those of the current run included; returns how many. Tokens that were returned "
    "stay valid.\nThe file becomes small where nobody else has the store open; else later entries use its "
    "space.";

inline constexpr const char* kSaveManifest =
    "Remembers which tokenizer this store was last used with, and flushes.";

inline constexpr const char* kVerify =
    "Checks every page, every record against its checksum and the tables against each other, on one "
    "snapshot.\n"
    "Counts no hits and records no accesses. With repair=True what is damaged is left out, and what is "
    "intact\n"
    "kept; the store is written anew for that.";

inline constexpr const char* kStats = R"(All figures, read in constant time.

entry_count, total_bytes, payload_bytes, file_bytes, max_bytes, pending, not_taken (puts that try_put() did not
take), tokenizer_sha, and two dicts: run,
what this handle did since it was opened, and last_run, what all processes of the newest run did that did
anything (run_id 0 if there was none). Each is as one of runs().)";

inline constexpr const char* kRuns =
    R"(The runs of the store, living ones included, newest first; at most the last 256 that did anything.

A run is what one process does between open() and close(), with all that its children and workers do. Each is
a dict: run_id, state ("alive", "ended" or "killed"), started_ns, ended_ns (0: not ended; when it was killed, its
last activity), last_active_ns, tokenizer_sha and sequence_len (of the first key used), several_tokenizers
(others were used too), hits, derived (hits served from an entry of another length), misses, hit_rate, puts,
declined, evicted, tokenize_seconds and bytes_after.)";

inline constexpr const char* kSurvey =
    R"(What the store holds, summed up in one pass over 40 bytes per committed entry.

groups               one dict for each tokenizer and sequence length, most bytes first: tokenizer_sha, sequence_len,
                     entries, tokens, bytes (of pages), first_stored_ns and last_stored_ns (0: not known)
lengths              entries and bytes by tokens per entry: at most up_to of them, and more than the dict before
last_access          entries and bytes by time since the last access: less than under_seconds (None: no limit), and
                     at least that of the dict before
last_access_unknown  entries and bytes of which no access is known
taken_ns             when

An entry whose mask is stored, because it is not all ones, counts the mask's elements as tokens too. Counts no hits
and records no accesses.)";

inline constexpr const char* kAddTokenizeSeconds =
    "Adds to the run's figures the seconds that were spent tokenizing.";

inline constexpr const char* kDeclareTokenizer =
    R"(Declares how a tokenizer truncates, with truncation=True and padding=False.

cuts_at_length  a text that is cut gives exactly sequence_len ids, so that shorter entries are whole texts
cuts_to_prefix  what is left of a cut text is a prefix of the ids of the whole: it is cut on the right, and no
                special token comes after the text

With that, entries of one sequence length may serve look-ups of another. Only for who has established it: a
wrong declaration makes wrong tokens. pretokenize_rows() and `tokcask warm` do, for tokenizers whose truncation
they can see. Kept in the store.)";

inline constexpr const char* kExplain =
    "Why a look-up of key would find nothing, or what it would find. Counts no hit, records no access.";

inline constexpr const char* kMissReasons =
    "How many look-ups of this handle found nothing, by reason; see Explanation.reason.";

inline constexpr const char* kMissSummary =
    "The same for people in one line, '' when there is nothing that nobody expects. close() logs it.";

inline constexpr const char* kExplanation = "What explain() found; str() of it is a sentence.";

inline constexpr const char* kVerifyReport = "What verify() found.";
inline constexpr const char* kDamage = "One finding of verify().";

}  // namespace tokcask::python::docs
