#include "messages.h"

#include <cstdio>

namespace tokcask::python {
namespace {

namespace nb = nanobind;

bool is_finalizing() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

void log_one(Severity severity, const std::string& text) {
  const nb::object logger = nb::module_::import_("logging").attr("getLogger")("tokcask");
  // A message may name a file whose name is not UTF-8.
  const nb::object line =
      nb::steal(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace"));
  if (!line.is_valid()) throw nb::python_error();
  logger.attr(severity == Severity::kWarning ? "warning" : "info")("%s", line);
}

}  // namespace

Messages::~Messages() {
  for (Node* node = take(); node != nullptr;) delete std::exchange(node, node->next);
}

void Messages::push(Severity severity, std::string_view text) {
  Node* const node = new Node{severity, std::string(text), newest_.load(std::memory_order_relaxed)};
  while (!newest_.compare_exchange_weak(node->next, node, std::memory_order_release,
                                        std::memory_order_relaxed)) {
  }
}

Messages::Node* Messages::take() noexcept {
  Node* oldest = nullptr;
  for (Node* node = newest_.exchange(nullptr, std::memory_order_acquire); node != nullptr;) {
    Node* const next = std::exchange(node->next, oldest);
    oldest = std::exchange(node, next);
  }
  return oldest;
}

void Messages::log() noexcept {
  if (newest_.load(std::memory_order_relaxed) == nullptr) return;
  const nb::error_scope keep_error;
  for (Node* node = take(); node != nullptr;) {
    const std::unique_ptr<Node> message(std::exchange(node, node->next));
    if (is_finalizing()) {
      std::fprintf(stderr, "tokcask: %s\n", message->text.c_str());
      continue;
    }
    try {
      log_one(message->severity, message->text);
    } catch (nb::python_error& error) {
      error.discard_as_unraisable("tokcask: a message of the store");
    }
  }
}

}  // namespace tokcask::python
