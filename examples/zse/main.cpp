// SPDX-License-Identifier: Apache-2.0
// The zse command line: parses, runs one command, and turns errors into a sentence and an exit status.
#include "commands.hpp"
#include "refusal.hpp"

#include <fmt/core.h>

#include <zse/core/error.hpp>

#include <cstdio>
#include <new>
#include <string_view>
#include <vector>

namespace {

/// llama.cpp's short options have several letters, which CLI11 does not know behind one dash.
std::vector<std::string> with_long_names(int argc, char** argv) {
    std::vector<std::string> arguments;
    for (int i = argc - 1; i > 0; --i) {  // CLI11 takes them last first
        const std::string_view argument = argv[i];
        if (argument == "-ctk") {
            arguments.emplace_back("--cache-type-k");
        } else if (argument == "-ctv") {
            arguments.emplace_back("--cache-type-v");
        } else if (argument == "-ngl") {
            arguments.emplace_back("--n-gpu-layers");
        } else {
            arguments.emplace_back(argument);
        }
    }
    return arguments;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("zse runs large language models inside a memory budget", "zse");
    app.set_version_flag("--version", zse::version);
    app.require_subcommand(1);
    zse_cli::Action action;
    zse_cli::declare_run(app, action);
    zse_cli::declare_info(app, action);
    zse_cli::declare_plan(app, action);
    zse_cli::declare_hardware(app, action);
    zse_cli::declare_tokenize(app, action);
    zse_cli::declare_perplexity(app, action);
    zse_cli::declare_logits(app, action);
    zse_cli::declare_benchmark(app, action);
    zse_cli::declare_doctor(app, action);
    zse_cli::declare_plot(app, action);
    try {
        app.parse(with_long_names(argc, argv));
        for (CLI::App* command : app.get_subcommands()) zse_cli::configure(*command);
        const int status = action();
        if (std::fflush(stdout) != 0) {
            fmt::print(stderr, "zse: unreadable: the output could not be written\n");
            return 1;
        }
        return status;
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    } catch (const zse_cli::Refused& refused) {
        fmt::print(stderr, "zse: {}: {}\n{}", zse::name(refused.code()), refused.what(), refused.steps());
        return zse::exit_status(refused.code());
    } catch (const zse::Error& error) {
        fmt::print(stderr, "zse: {}: {}\n", zse::name(error.code()), error.what());
        return zse::exit_status(error.code());
    } catch (const std::bad_alloc&) {
        fmt::print(
            stderr,
            "zse: out_of_memory: the system refused memory; use a shorter context or a smaller batch\n");
        return 1;
    } catch (const std::exception& error) {
        fmt::print(stderr, "zse: internal: {}\n", error.what());
        return 1;
    }
}
