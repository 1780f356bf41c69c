// SPDX-License-Identifier: Apache-2.0
// Prints what this machine can do at most, which is what speeds are divided by: a table, or --json.
#include "roofline.hpp"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct Options {
    unsigned threads = std::max(std::thread::hardware_concurrency(), 1u);
    std::size_t bytes = std::size_t{512} << 20;
    const zse_bench::Isa* isa = zse_bench::widest();
    bool json = false;
};

[[noreturn]] void wrong_usage() {
    std::fputs(
        "bench_roofline [--threads N] [--bytes N] [--isa avx2|avx512|avx512_vnni|neon] [--json]\n"
        "  --bytes  memory that is read, 512 MiB by default: more than the caches hold\n"
        "  --isa    instructions of the peaks, the widest of this machine by default\n",
        stderr);
    std::exit(2);
}

template <class Number>
Number number(const char* text) {
    Number value = 0;
    const char* const end = text + std::strlen(text);
    const auto [stop, error] = std::from_chars(text, end, value);
    if (error != std::errc() || stop != end || value == 0) wrong_usage();
    return value;
}

const zse_bench::Isa* isa(std::string_view name) {
    for (const zse_bench::Isa& each : zse_bench::isas) {
        if (each.name == name && zse_bench::runs(each)) return &each;
    }
    std::fprintf(stderr, "this machine does not run %s\n", std::string(name).c_str());
    std::exit(1);
}

Options parse(int count, char** arguments) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string_view option = arguments[i];
        if (option == "--json") {
            options.json = true;
            continue;
        }
        if (++i == count) wrong_usage();
        if (option == "--threads") {
            options.threads = number<unsigned>(arguments[i]);
        } else if (option == "--bytes") {
            options.bytes = number<std::size_t>(arguments[i]);
        } else if (option == "--isa") {
            options.isa = isa(arguments[i]);
        } else {
            wrong_usage();
        }
    }
    return options;
}

}  // namespace

int main(int count, char** arguments) {
    const Options options = parse(count, arguments);
    const zse_bench::Rate read = zse_bench::read_bandwidth(options.threads, options.bytes);
    zse_bench::Rate integer;
    zse_bench::Rate floating;
    std::string name = "none";
    std::string integer_mix;
    std::string float_mix;
    if (options.isa != nullptr) {
        integer = zse_bench::integer_peak(options.isa->integer, options.threads);
        floating = zse_bench::float_peak(options.isa->floating, options.threads);
        name = options.isa->name;
        integer_mix = zse_bench::name(options.isa->integer);
        float_mix = zse_bench::name(options.isa->floating);
    }
    if (options.json) {
        std::printf("{\"threads\": %u, \"bytes\": %zu, \"isa\": \"%s\"", options.threads, options.bytes,
                    name.c_str());
        const auto entry = [](const char* key, const std::string& mix, const zse_bench::Rate& rate) {
            std::printf(", \"%s\": {\"mix\": \"%s\", \"best\": %.6g, \"median\": %.6g}", key, mix.c_str(),
                        rate.best, rate.median);
        };
        entry("read_bytes_per_second", "read", read);
        entry("integer_multiply_adds_per_second", integer_mix, integer);
        entry("float_multiply_adds_per_second", float_mix, floating);
        std::puts("}");
        return 0;
    }
    std::printf("%u threads, %zu bytes, %s\n%-32s %12s %12s\n", options.threads, options.bytes, name.c_str(),
                "", "best", "median");
    const auto line = [](const std::string& what, const zse_bench::Rate& rate, const char* unit) {
        std::printf("%-32s %12.1f %12.1f %s\n", what.c_str(), rate.best / 1e9, rate.median / 1e9, unit);
    };
    line("read", read, "GB/s");
    if (options.isa == nullptr) return 0;
    line(integer_mix, integer, "10^9 multiply-adds/s");
    line(float_mix, floating, "10^9 multiply-adds/s");
    return 0;
}
