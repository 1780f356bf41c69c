// SPDX-License-Identifier: Apache-2.0
// GPUs from the text of nvidia-smi: two of them, missing fields, garbage, and a tool that is absent or fails.
// rows: 15
#include <zse/system/gpu.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using zse::MiB;
using zse::system::CommandResult;
using zse::system::Gpu;
using zse::system::GpuReport;
using zse::system::parse_nvidia_smi;
using zse::system::query_gpus;

std::string stored(const std::string& name) {
    std::ifstream file(std::string(ZSE_TEST_DATA) + "/system/" + name);
    EXPECT_TRUE(file) << name;
    return {std::istreambuf_iterator<char>(file), {}};
}

GpuReport answer(CommandResult::Status status, int exit_status, const std::string& output) {
    return query_gpus([&](const std::vector<std::string>& arguments) {
        EXPECT_EQ(arguments.at(0), "nvidia-smi");
        EXPECT_EQ(arguments.at(1), "--query-gpu=index,name,memory.total,memory.free,compute_cap");
        EXPECT_EQ(arguments.at(2), "--format=csv,noheader,nounits");
        return CommandResult{status, exit_status, output};
    });
}

TEST(Gpu, ReadsTwoGpus) {
    const GpuReport report = answer(CommandResult::Status::finished, 0, stored("nvidia_smi_two.csv"));
    const Gpu first{0, "NVIDIA GeForce RTX 4090", MiB(24564), MiB(23028), Gpu::Capability{8, 9}};
    const Gpu second{1, "NVIDIA H100 80GB HBM3", MiB(81559), MiB(81007), Gpu::Capability{9, 0}};
    EXPECT_THAT(report.gpus, ElementsAre(first, second));
    EXPECT_EQ(report.note, "");
}

TEST(Gpu, FieldsThatTheDriverDoesNotKnowAreEmpty) {
    const auto gpus =
        parse_nvidia_smi("0, NVIDIA GB10, [N/A], [Not Supported], 12.1\r\n3, Tesla K80, 11441, [N/A], N/A\n");
    EXPECT_THAT(gpus, ElementsAre(Gpu{0, "NVIDIA GB10", {}, {}, Gpu::Capability{12, 1}},
                                  Gpu{3, "Tesla K80", MiB(11441), {}, {}}));
}

TEST(Gpu, ANameMayHoldCommas) {
    EXPECT_THAT(parse_nvidia_smi("0, Graphics, Device, 100, 50, 7.5"),
                ElementsAre(Gpu{0, "Graphics, Device", MiB(100), MiB(50), Gpu::Capability{7, 5}}));
}

TEST(Gpu, NoTextIsNoGpu) {
    EXPECT_THAT(parse_nvidia_smi(""), IsEmpty());
    EXPECT_THAT(parse_nvidia_smi("\n \r\n\n"), IsEmpty());
}

TEST(Gpu, GarbageIsAnErrorThatNamesTheLine) {
    const std::string good = "0, A, 100, 50, 7.5\n";
    for (const std::string line :
         {"No devices were found", "x, A, 100, 50, 7.5", "-1, A, 100, 50, 7.5", "1, , 100, 50, 7.5",
          "1, A, 100, 50", "1, A, many, 50, 7.5", "1, A, 100, 5.5, 7.5", "1, A, 100 MiB, 50, 7.5",
          "1, A, 99999999999999999999, 1, 7.5", "1, A, 9999999999999, 1, 7.5", "1, A, 100, 101, 7.5",
          "1, A, 100, 50, 7", "1, A, 100, 50, seven", "1, A, 100, 50, 7.5.1", "1, A, , , ", ",,,,",
          "\x01\xff"}) {
        try {
            parse_nvidia_smi(good + line + "\n");
            ADD_FAILURE() << "accepted: " << line;
        } catch (const zse::Error& error) {
            EXPECT_EQ(error.code(), zse::ErrorCode::corrupt);
            EXPECT_THAT(error.what(), HasSubstr("nvidia-smi: line 2: expected ")) << line;
        }
    }
    std::string many;
    for (int i = 0; i < 257; ++i) many += std::to_string(i) + ", A, 100, 50, 7.5\n";
    EXPECT_THROW(parse_nvidia_smi(many), zse::Error);
}

TEST(Gpu, AToolThatIsAbsentOrFailsGivesNoGpusAndTheReason) {
    using Status = CommandResult::Status;
    const auto note = [](Status status, int exit_status, const std::string& output) {
        const GpuReport report = answer(status, exit_status, output);
        EXPECT_THAT(report.gpus, IsEmpty());
        EXPECT_EQ(report.note.find('\n'), std::string::npos);
        return report.note;
    };
    const std::string good = "0, A, 100, 50, 7.5\n";
    EXPECT_EQ(note(Status::absent, 0, ""), "no NVIDIA GPU found: there is no nvidia-smi");
    EXPECT_THAT(note(Status::timed_out, 0, good), HasSubstr("does not answer"));
    EXPECT_THAT(note(Status::too_long, 0, good), HasSubstr("too much"));
    EXPECT_THAT(note(Status::killed, 0, good), HasSubstr("crashed"));
    EXPECT_EQ(note(Status::finished, 9, "NVIDIA-SMI has failed\nbecause of the driver\n"),
              "no NVIDIA GPU used: nvidia-smi ended with status 9: 'NVIDIA-SMI has failed'");
    EXPECT_THAT(note(Status::finished, 0, "No devices were found\n"),
                HasSubstr("found 'No devices were found'"));
    EXPECT_EQ(note(Status::finished, 0, ""), "no NVIDIA GPU found: nvidia-smi lists none");
}

TEST(Gpu, TheLiveToolNeverThrows) {
    const GpuReport report = query_gpus();
    EXPECT_EQ(report.gpus.empty(), !report.note.empty());
}

}  // namespace
