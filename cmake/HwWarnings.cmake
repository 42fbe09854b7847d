# The warnings every target of the project is compiled with, and the sanitizers asked for.
add_library(hw_warnings INTERFACE)
target_compile_options(hw_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes
  -Wmissing-prototypes -Wold-style-definition -Wcast-qual -Wcast-align -Wpointer-arith
  -Wwrite-strings -Wformat=2 -Wundef -Wvla -Wswitch-enum -Wimplicit-fallthrough
  -Wnull-dereference -Wdouble-promotion
  $<$<C_COMPILER_ID:GNU>:-Wlogical-op;-Wduplicated-cond;-Wduplicated-branches>)
if(HW_WERROR)
  target_compile_options(hw_warnings INTERFACE -Werror)
endif()
target_compile_definitions(hw_warnings INTERFACE _GNU_SOURCE)
if(HW_SANITIZE)
  target_compile_options(hw_warnings INTERFACE
    -fsanitize=${HW_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -Wno-null-dereference)
  target_link_options(hw_warnings INTERFACE -fsanitize=${HW_SANITIZE})
endif()
