// SPDX-License-Identifier: Apache-2.0
// Reads tests/data/references; the formats are described in tests/references/README.md.
#pragma once

#include <nlohmann/json.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace support {

static_assert(std::endian::native == std::endian::little, "the references are read as they lie in the file");

/// What is kept of one row of SmolLM2's logits.
struct ReferenceRow {
    static constexpr std::uint32_t sample_stride = 2048;
    struct Entry {
        std::uint32_t id;
        float logit;
    };
    float maximum;
    float mean;
    std::array<Entry, 16> top;     // highest first
    std::array<float, 24> sample;  // logits of ids 0, 2048, 4096, ...

    [[nodiscard]] float spread() const noexcept { return maximum - mean; }
};
static_assert(sizeof(ReferenceRow) == 4 + 4 + 16 * 8 + 24 * 4);

/// One position of a window of 512 tokens of prose.txt.
struct ReferencePosition {
    std::uint32_t token;
    std::uint32_t top1;
    float gap;  // highest minus second highest logit, as a share of the spread
    float nll;  // of the next token of the window; 0 at its last position
};
static_assert(sizeof(ReferencePosition) == 16);

/// The whole file `name` below tests/data, e.g. "texts/prose.txt".
inline std::string read_test_data(const std::string& name) {
    std::ifstream file(std::string(ZSE_TEST_DATA) + "/" + name, std::ios::binary);
    if (!file) throw std::runtime_error("tests/data has no readable file " + name);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline nlohmann::json read_reference_json(const std::string& name) {
    return nlohmann::json::parse(read_test_data("references/" + name));
}

/// A file of records: read_reference<ReferenceRow>("smollm2_prompts.bin").
template <class Record>
std::vector<Record> read_reference(const std::string& name) {
    const std::string bytes = read_test_data("references/" + name);
    if (bytes.empty() || bytes.size() % sizeof(Record) != 0) {
        throw std::runtime_error("references/" + name + " does not hold whole records");
    }
    std::vector<Record> records(bytes.size() / sizeof(Record));
    std::memcpy(records.data(), bytes.data(), bytes.size());
    return records;
}

}  // namespace support
