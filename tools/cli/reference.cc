#include "cli/reference.h"

#include <algorithm>
#include <array>
#include <span>
#include <sstream>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/verbs.h"
#include "reference/render.h"

namespace tokcask::cli {
namespace {

// The values in "FORMAT:{parquet,mds}", which is how the parser describes a type with its checks.
std::vector<std::string> choices_in(const std::string& type) {
  std::vector<std::string> choices;
  const std::size_t open = type.find(":{");
  if (open == std::string::npos) return choices;
  std::istringstream list(type.substr(open + 2, type.find('}', open) - open - 2));
  for (std::string choice; std::getline(list, choice, ',');) choices.push_back(choice);
  return choices;
}

reference::Paths paths_of(std::string_view type) {
  if (type.starts_with(kDirectory)) return reference::Paths::kDirectories;
  return type.starts_with(kFile) ? reference::Paths::kFiles : reference::Paths::kNone;
}

reference::Argument describe_argument(const CLI::Option& option) {
  reference::Argument argument;
  const std::string type = option.get_type_name();
  const bool has_value = option.get_items_expected_max() > 0;
  if (option.get_positional()) {
    argument.names.push_back(option.get_name());
  } else {
    for (const std::string& name : option.get_snames()) argument.names.push_back('-' + name);
    for (const std::string& name : option.get_lnames()) argument.names.push_back("--" + name);
    if (has_value) argument.value = type.substr(0, type.find(':'));
  }
  argument.choices = choices_in(type);
  argument.default_value = option.get_default_str();
  argument.description = option.get_description();
  if (has_value) argument.paths = paths_of(type);
  argument.required = option.get_required();
  argument.repeated = option.get_items_expected_max() > 1;
  return argument;
}

class HelpFormatter final : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode /*mode*/) const override {
    return reference::help(cli::describe(*app, name));
  }
};

struct Rendering {
  const char* name;
  std::string (*render)(const reference::Command& program);
};

constexpr std::array kCompletions{Rendering{"bash", reference::bash_completion},
                                  Rendering{"zsh", reference::zsh_completion},
                                  Rendering{"fish", reference::fish_completion}};

std::string man_page(const reference::Command& program) {
  return reference::man_page(program, "tokcask " TOKCASK_VERSION);
}

constexpr std::array kDocuments{Rendering{"man", man_page}, Rendering{"markdown", reference::markdown}};

// The operand that chooses one of `renderings`, which the verb prints of `app`.
void add_renderings(CLI::App& verb, const char* operand, const char* description,
                    std::span<const Rendering> renderings, const CLI::App& app, Action& action) {
  std::vector<std::string> names;
  for (const Rendering& rendering : renderings) names.emplace_back(rendering.name);
  const auto name = std::make_shared<std::string>();
  verb.add_option(operand, *name, description)->required()->check(CLI::IsMember(names));
  verb.callback([name, renderings, &app, &action] {
    action = [name, renderings, &app](Session& session) {
      const auto chosen = std::find_if(renderings.begin(), renderings.end(),
                                       [&](const Rendering& rendering) { return rendering.name == *name; });
      session.console.data(chosen->render(describe(app, app.get_name())));
      return kExitOk;
    };
  });
}

}  // namespace

reference::Command describe(const CLI::App& app, const std::string& name) {
  reference::Command command;
  command.name = name;
  command.description = app.get_description();
  command.notes = app.get_footer();
  const CLI::Option* help = app.get_help_ptr();
  for (const CLI::Option* option :
       app.get_options([](const CLI::Option* o) { return !o->get_group().empty(); })) {
    if (option == help) continue;
    (option->get_positional() ? command.operands : command.options).push_back(describe_argument(*option));
  }
  if (help != nullptr) command.options.push_back(describe_argument(*help));
  for (const CLI::App* verb :
       app.get_subcommands([](const CLI::App* v) { return !v->get_group().empty(); })) {
    command.verbs.push_back(describe(*verb, name + ' ' + verb->get_name()));
  }
  return command;
}

std::shared_ptr<CLI::FormatterBase> help_formatter() { return std::make_shared<HelpFormatter>(); }

void add_completion(CLI::App& app, Action& action) {
  CLI::App* verb =
      app.add_subcommand("completion", "Print a script that makes a shell complete this command");
  add_renderings(*verb, "SHELL", "the shell to make it for", kCompletions, app, action);
  verb->footer(
      "It completes verbs, options and their values, and paths. Packages put it where shells look for it; "
      "otherwise put the line of your shell into its start-up file.\n"
      "\n"
      "Examples:\n"
      "  eval \"$(tokcask completion bash)\"        # in ~/.bashrc\n"
      "  eval \"$(tokcask completion zsh)\"         # in ~/.zshrc, behind compinit\n"
      "  tokcask completion fish | source         # in ~/.config/fish/config.fish");
}

void add_reference(CLI::App& app, Action& action) {
  CLI::App* verb = app.add_subcommand("reference", "Print the manual page, or the page in docs/reference");
  verb->group("");
  add_renderings(*verb, "FORM", "what to print", kDocuments, app, action);
}

}  // namespace tokcask::cli
