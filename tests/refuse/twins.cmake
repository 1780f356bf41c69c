# SPDX-License-Identifier: Apache-2.0
# Compiles SOURCE with and without ZSE_REFUSE and compares what the compiler says with its "// refuse:" lines.
set(ENV{LC_ALL} C)
list(TRANSFORM INCLUDES PREPEND "-I")
set(compile "${COMPILER}" -std=c++20 -fsyntax-only -fmessage-length=0 ${FLAGS} ${INCLUDES})

file(STRINGS "${SOURCE}" lines REGEX "^// refuse: \".+\"$")
if(NOT lines)
    message(FATAL_ERROR "${SOURCE} names no sentence: add a line  // refuse: \"the sentence\"")
endif()

execute_process(COMMAND ${compile} "${SOURCE}" RESULT_VARIABLE status ERROR_VARIABLE said)
if(NOT status EQUAL 0)
    message(FATAL_ERROR "the accepting twin of ${SOURCE} does not compile:\n${said}")
endif()

execute_process(COMMAND ${compile} -DZSE_REFUSE "${SOURCE}" RESULT_VARIABLE status ERROR_VARIABLE said)
if(status EQUAL 0)
    message(FATAL_ERROR "${SOURCE} compiles with ZSE_REFUSE, and should be refused")
endif()
foreach(line IN LISTS lines)
    string(REGEX REPLACE "^// refuse: \"(.+)\"$" "\\1" sentence "${line}")
    string(FIND "${said}" "${sentence}" place)
    if(place EQUAL -1)
        message(FATAL_ERROR "${SOURCE} is refused, but not with \"${sentence}\":\n${said}")
    endif()
endforeach()
