// SPDX-License-Identifier: Apache-2.0
// Writes first inputs for the tokenizer's fuzz harness into a directory.
#include <zse/tokenizer/pre_tokenizer_table.hpp>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

int main(int count, char** arguments) {
    if (count != 2) return 2;
    const std::filesystem::path directory = arguments[1];
    std::filesystem::create_directories(directory);
    int written = 0;
    const auto write = [&](char mode, std::size_t family, std::string_view bytes) {
        std::ofstream file(directory / ("tokenizer_" + std::to_string(written++)), std::ios::binary);
        file << mode << static_cast<char>(family) << bytes;
    };
    for (std::size_t family = 0; family < zse::tokenizer::named_pre_tokenizers.size(); ++family) {
        write(
            '\x00', family,
            "hello world's 1212  \n\n\tx <tool><|im_start|> \xC3\xA9\xF0\x9F\x9A\x80 \xE4\xBD\xA0 A\xCC\x81");
        write('\x81', family, "CamelCASE 'RE !!\r\n ... \xEF\xBC\x8C\xE3\x80\x82 \xD9\xA1 <unk>");
    }
    write('\x01', 0, "\xC3\x00\xA9\x00\xF0\x00\x9F\x00\x80\x00\x00\x01\x10\x01");
    write('\x02', 0, "0h e\n1hello\n8<new>\n;<control>\n<<user>\n2abc\n3a\n4x\n5qwen2\n6again\n");
    return 0;
}
