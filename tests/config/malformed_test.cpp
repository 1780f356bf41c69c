// SPDX-License-Identifier: Apache-2.0
// Files that are wrong: each is refused with the line and the column where it is, and none hangs or crashes.
// rows: 106 107
#include <zse/config/file.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <chrono>
#include <fstream>
#include <iterator>
#include <random>

namespace {

using namespace zse;

struct Malformed {
    const char* name;
    std::string text;
    std::string place;  ///< line:column
    std::string words;
};

const std::string gpu = "kv_cache:\n  tiers:\n    - type: gpu\n      size: auto\n";

std::vector<Malformed> malformed() {
    return {
        {"UnknownKey", "max_contxt: 4096\n", "1:1", "'max_contxt' is no option; did you mean 'max_context'?"},
        {"UnknownKeyOfVllm", "model: a\n\nmax_num_seq: 4\n", "3:1", "did you mean 'max_num_seqs'?"},
        {"UnknownKeyFarFromAll", "model: a\nfrobnicate: 1\n", "2:1", "'frobnicate' is no option"},
        {"UnknownNestedKey", "kv_cache:\n  teirs: []\n", "2:3", "did you mean 'kv_cache.tiers'?"},
        {"UnknownSection", "kv_cach:\n  tiers: []\n", "1:1", "did you mean 'kv_cache'?"},
        {"CaseMatters", "Max_Context: 4096\n", "1:1", "did you mean 'max_context'?"},
        {"SectionWithAValue", "kv_cache: int4\n", "1:11", "expected keys below it, found a value"},
        {"OptionWithKeys", "max_context:\n  size: 3\n", "2:3", "expected one value, found keys"},
        {"OptionWithAList", "max_context: [1, 2]\n", "1:14", "expected one value, found a list"},
        {"NoValue", "model: a\nmax_context:\nmlock: true\n", "2:1", "'max_context' has no value"},
        {"NullValue", "max_context: ~\n", "1:1", "'max_context' has no value"},
        {"EmptyValue", "model: ''\n", "1:8", "expected a value"},
        {"NoNumber", "max_num_seqs: many\n", "1:15", "expected a whole number, found 'many'"},
        {"NegativeNumber", "max_num_seqs: -1\n", "1:15", "expected a whole number"},
        {"NumberWithARest", "max_num_seqs: 4x\n", "1:15", "expected a whole number"},
        {"NumberTooLarge", "seed: 99999999999999999999\n", "1:7", "expected a whole number"},
        {"NoShare", "gpu_memory_utilization: 90\n", "1:25", "a share above 0 and at most 1"},
        {"NoShareOfNothing", "gpu_memory_utilization: 0\n", "1:25", "a share above 0"},
        {"HeadroomOfAll", "headroom: 1.0\n", "1:11", "from 0 to below 1"},
        {"NotFinite", "temperature: nan\n", "1:14", "expected a number"},
        {"NoSize", "memory:\n  gpu: 10 GBs\n", "2:8", "'memory.gpu': '10 GBs' is no size"},
        {"NoTokens", "max_model_len: 4KB\n", "1:16", "128K"},
        {"NoContextAtAll", "max_model_len: 0\n", "1:16", "1 to 2^30 tokens"},
        {"NoBoolean", "enforce_eager: maybe\n", "1:16", "expected true or false, found 'maybe'"},
        {"NoDataType", "dtype: float17\n", "1:8", "found 'float17'"},
        {"NoGigabytes", "swap_space: -4\n", "1:13", "gigabytes"},
        {"NoTime", "keep_alive: 5 minutes\n", "1:13", "such as 5m"},
        {"KeyTwice", "model: a\nmlock: true\nmodel: b\n", "3:1", "'model' is there twice, first in line 1"},
        {"OptionTwice", "max_context: 1\nmax_model_len: 2\n", "2:1",
         "'max_model_len' states the same option as 'max_context' in line 1"},
        {"OptionTwiceNested", "kv_cache:\n  quant: int4\nkv-quant: int8\n", "3:1",
         "the same option as 'kv_cache.quant' in line 2"},
        {"TabAsIndentation", "kv_cache:\n\ttiers: []\n", "2:1", "a tab in the indentation"},
        {"TabAfterBlanks", "kv_cache:\n  \ttiers: []\n", "2:3", "a tab in the indentation"},
        {"Anchor", "model: &a x\n", "1:8", "anchors (&)"},
        {"Alias", "model: &a x\nsystem: *a\n", "1:8", "anchors (&)"},
        {"AliasOfNothing", "model: *a\n", "1:8", "the referenced anchor is not defined"},
        {"BillionLaughs", "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "1:4", "anchors (&)"},
        {"Tag", "model: !!binary aGk=\n", "1:8", "tags (!)"},
        {"Directive", "%YAML 1.2\n---\nmodel: a\n", "1:1", "directives (%)"},
        {"TwoDocuments", "model: a\n---\nmodel: b\n", "2:1", "a second document"},
        {"NoKeysAtAll", "just some words\n", "1:1", "found a value"},
        {"AList", "- model: a\n", "1:1", "found a list"},
        {"ListAsKey", "? [a, b]\n: 1\n", "1:3", "expected a key"},
        {"NullAsKey", "model: a\n~: 1\n", "2:1", "expected a key, found nothing"},
        {"TwoKeysInALine", "model: a mlock: true\n", "1:15", "illegal map value"},
        {"BadIndentation", "kv_cache:\n    quant: int4\n  old: int4\n", "3:3", "no YAML"},
        {"QuoteLeftOpen", "mlock: true\nmodel: \"a\nunified: true\n", "2:8", "this quote is not closed"},
        {"QuoteLeftOpenAtTheEnd", "model: 'a", "1:8", "this quote is not closed"},
        {"ListAsKeyInBrackets", "kv_cache: {[a]: 1}\n", "1:12", "expected a key"},
        {"BracketLeftOpen", "kv_cache: {tiers: [\n", "2:1", "end of sequence flow not found"},
        {"ControlCharacter", "model: a\nsystem: a\x01z\n", "2:10", "a control character"},
        {"ZeroByte", std::string("model: a\0b\n", 11), "1:9", "a control character"},
        {"CarriageReturnAlone", "model: a\rmlock: true\n", "1:9", "a control character"},
        {"NoUtf8", "model: caf\xE9\n", "1:11", "no UTF-8"},
        {"Utf16", std::string("\xFF\xFEm\0o\0", 6), "1:1", "no UTF-8"},
        {"ColumnsAreCharacters", "{system: \"\xC3\xA9\xC3\xA9\", max_contxt: 1}\n", "1:16", "'max_contxt'"},
        {"Deep", "model: " + std::string(17, '[') + std::string(17, ']'), "1:23", "nested more than 16 deep"},
        {"TiersWithoutAList", "kv_cache:\n  tiers: gpu\n", "2:10", "expected a list of tiers"},
        {"NoTiers", "kv_cache:\n  tiers: []\n", "2:10", "expected a list of tiers"},
        {"TierWithoutKeys", "kv_cache:\n  tiers:\n    - gpu\n", "3:7",
         "a tier has the keys type, size and path"},
        {"TierUnknown", "kv_cache:\n  tiers:\n    - type: vram\n      size: auto\n", "3:13",
         "'vram' is no tier"},
        {"TierWithoutType", "kv_cache:\n  tiers:\n    - size: auto\n", "3:7", "a tier needs a type"},
        {"TierWithoutSize", gpu + "    - type: cpu\n", "5:7", "a tier needs a size"},
        {"TierOfBadSize", gpu + "    - type: cpu\n      size: 32GBB\n", "6:13", "'size': '32GBB' is no size"},
        {"TierOfNothing", "kv_cache:\n  tiers:\n    - {type: cpu, size: 0}\n", "3:7", "leave it out"},
        {"TierWithAnUnknownKey", gpu + "      pth: /x\n", "5:7",
         "'pth' is no key of a tier; did you mean 'path'?"},
        {"TierTwice", gpu + "    - type: gpu\n      size: 1GB\n", "5:7", "the gpu tier is there twice"},
        {"TierTwiceByAnotherName",
         "kv_cache:\n  tiers:\n    - {type: cpu, size: 1GB}\n    - {type: host, size: 2GB}\n", "4:7",
         "the cpu tier is there twice"},
        {"TiersInWrongOrder",
         "kv_cache:\n  tiers:\n    - {type: cpu, size: 1GB}\n    - {type: gpu, size: auto}\n", "4:7",
         "the order is gpu, cpu, disk"},
        {"DiskWithoutAPath", gpu + "    - type: disk\n      size: 1GB\n", "5:7", "a disk tier needs a path"},
        {"DiskOfAnySize", gpu + "    - {type: disk, size: auto, path: /x}\n", "5:7",
         "a disk tier needs a size"},
        {"DiskWithAnEmptyPath", gpu + "    - {type: disk, size: 1GB, path: ''}\n", "5:37",
         "'path': expected a directory"},
        {"PathOfAGpu", gpu + "      path: /x\n", "3:7", "a path belongs to a disk tier, not to the gpu tier"},
    };
}

class MalformedFile : public testing::TestWithParam<Malformed> {};

TEST_P(MalformedFile, IsRefusedWhereItIsWrong) {
    const Malformed& file = GetParam();
    support::expect_error([&] { config::read_text("zse.yaml", file.text); }, ErrorCode::usage,
                          {"zse.yaml:" + file.place + ": ", file.words});
}
INSTANTIATE_TEST_SUITE_P(, MalformedFile, testing::ValuesIn(malformed()),
                         [](const auto& each) { return std::string(each.param.name); });

/// Reads a text; an error has to be wrong usage, with the file's name, on one printable line.
void read_or_refuse(const std::string& text) {
    bool refused = false;
    try {
        config::read_text("f", text);
    } catch (const Error& error) {
        refused = true;
        EXPECT_EQ(error.code(), ErrorCode::usage);
        EXPECT_EQ(std::string_view(error.what()).substr(0, 2), "f:") << error.what();
        for (const char c : std::string_view(error.what()))
            ASSERT_TRUE(c >= 0x20 && c < 0x7f) << error.what();
    }
    EXPECT_TRUE(refused || !text.empty());
}

TEST(ConfigFile, NoChangeOfAFileIsMoreThanAnError) {
    std::mt19937 random(106);
    const auto below = [&](std::size_t most) { return random() % most; };
    for (const char* name : {"zse.yaml", "vllm_config.yaml"}) {
        std::ifstream file(std::string(ZSE_TEST_DATA) + "/config/" + name, std::ios::binary);
        const std::string whole{std::istreambuf_iterator<char>(file), {}};
        ASSERT_FALSE(whole.empty());
        for (std::size_t end = 0; end <= whole.size(); ++end) read_or_refuse(whole.substr(0, end));
        constexpr std::string_view letters = "{}[]:,-?!&*#|>'\"%@` \n\ta0~<\\\xC3\x85\r.";
        for (int round = 0; round < 5000; ++round) {
            std::string changed = whole;
            for (int i = 0; i <= round % 6; ++i) {
                const std::size_t at = below(changed.size());
                const char letter = letters[below(letters.size())];
                if (round % 2 == 0) {
                    changed[at] = letter;
                } else {
                    changed.insert(at, 1, letter);
                }
            }
            read_or_refuse(changed);
        }
    }
}

TEST(ConfigFile, NoFileTakesLong) {
    const auto repeated = [](const std::string& before, const std::string& part) {
        std::string text = before;
        while (text.size() + part.size() <= config::most_yaml_bytes) text += part;
        return text;
    };
    std::string keys = "{";
    for (int i = 0; keys.size() < config::most_yaml_bytes - 20; ++i) keys += "k" + std::to_string(i) + ": 1,";
    std::vector<std::string> texts{keys};
    for (const char* part :
         {"[", "{", "- ", "? ", "a: ", "[a,", "[],", "!", "*", "&a ", "'", "\"\\\n", "|\n", "\n", "#", "%"})
        texts.push_back(repeated("", part));
    for (const char* part : {"a,", "a: b,", "[a,", "- a\n", " b\n"})
        texts.push_back(repeated("model: [", part));
    for (const std::string& text : texts) {
        const auto start = std::chrono::steady_clock::now();
        read_or_refuse(text);
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        EXPECT_LT(taken.count(), 30) << text.substr(0, 20)
                                     << ": most take a hundredth of a second, one half a second";
    }
}

}  // namespace
