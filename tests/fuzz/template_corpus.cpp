// SPDX-License-Identifier: Apache-2.0
// Writes first inputs for the template's fuzz harness into a directory: the cases and templates that the
// tests use. Runs in the root of the repository.
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

namespace {

std::string read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) return 2;
    const std::filesystem::path directory = arguments[1];
    std::filesystem::create_directories(directory);
    int written = 0;
    const auto write = [&](std::string_view bytes) {
        std::ofstream(directory / ("template_" + std::to_string(written++)), std::ios::binary) << bytes;
    };

    const std::filesystem::path data = "tests/data/templates";
    if (!std::filesystem::is_directory(data)) return 1;
    for (const auto& entry : std::filesystem::directory_iterator(data)) {
        if (entry.path().extension() == ".jinja") write(read(entry.path()));
    }
    const std::string cases = read(data / "cases.txt");
    constexpr std::string_view mark = "\n----\n";
    for (std::size_t begin = 0; begin < cases.size();) {
        const std::size_t end = std::min(cases.find(mark, begin), cases.size());
        write(std::string_view(cases).substr(begin, end - begin));
        begin = end + mark.size();
    }
    // Self-reference, growth and depth: what the limits are for.
    write("{% set n = namespace() %}{% set n.n = n %}{{ n.n.n is defined }}");
    write(
        "{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l "
        "}}");
    write("{% macro m(a) %}{{ m(a + a) }}{% endmacro %}{{ m('ab') }}");
    write(
        "{% macro m(p) %}{% macro i() %}{{ p }}{% endmacro %}{% set n.f = i %}{% endmacro %}"
        "{% set n = namespace(f=1) %}{% for i in range(99) %}{{ m(n.f) }}{% endfor %}");
    write("{% for i in range(999) %}{% for j in range(999) %}{{ 'x' * 99999 }}{% endfor %}{% endfor %}");
    return 0;
}
