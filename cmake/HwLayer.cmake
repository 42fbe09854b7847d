# hw_layer(NAME USES layer... [LINKS target...] [SQLITE])
#
# A layer is a folder.  Its sources are compiled once for the library and, if the layer calls
# SQLite (SQLITE), once more with HW_EXTENSION for the loadable extension, where SQLite is
# reached only through sqlite3ext.h.  The static library hw_NAME links nothing but the layers it
# may use, so that a unit test of a layer cannot link if the layer calls upwards.
function(hw_layer name)
  cmake_parse_arguments(ARG "SQLITE" "" "USES;LINKS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.c)
  list(FILTER sources EXCLUDE REGEX "/extension\\.c$")

  if(NOT sources) # a layer that has only headers yet
    set(empty ${CMAKE_CURRENT_BINARY_DIR}/empty_${name}.c)
    file(WRITE ${empty} "typedef int hw_empty_${name};\n")
    set(sources ${empty})
  endif()
  set(variants "")
  if(ARG_SQLITE)
    set(variants _ext)
  endif()
  foreach(variant IN ITEMS "" ${variants})
    add_library(hw_${name}_objects${variant} OBJECT ${sources})
    target_include_directories(hw_${name}_objects${variant} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}
                                                                   ${CMAKE_CURRENT_SOURCE_DIR}/include)
    target_compile_definitions(hw_${name}_objects${variant} PRIVATE HW_VERSION="${PROJECT_VERSION}")
    target_link_libraries(hw_${name}_objects${variant} PRIVATE hw_warnings ${ARG_LINKS})
  endforeach()
  if(ARG_SQLITE)
    target_compile_definitions(hw_${name}_objects_ext PRIVATE HW_EXTENSION=1)
    target_link_libraries(hw_${name}_objects PRIVATE PkgConfig::SQLITE)
    list(APPEND ARG_LINKS PkgConfig::SQLITE)
  endif()

  add_library(hw_${name} STATIC $<TARGET_OBJECTS:hw_${name}_objects>)
  target_include_directories(hw_${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}
                                               ${CMAKE_CURRENT_SOURCE_DIR}/include)
  list(TRANSFORM ARG_USES PREPEND hw_)
  target_link_libraries(hw_${name} PUBLIC ${ARG_USES} ${ARG_LINKS} Threads::Threads)
  set_property(GLOBAL APPEND PROPERTY HW_LAYER_OBJECTS $<TARGET_OBJECTS:hw_${name}_objects>)
  if(ARG_SQLITE)
    set_property(GLOBAL APPEND PROPERTY HW_EXTENSION_OBJECTS $<TARGET_OBJECTS:hw_${name}_objects_ext>)
  else()
    set_property(GLOBAL APPEND PROPERTY HW_EXTENSION_OBJECTS $<TARGET_OBJECTS:hw_${name}_objects>)
  endif()
endfunction()
