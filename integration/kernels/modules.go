package main

import (
	"bytes"
	"context"
	"debug/elf"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// moduleFiles returns the files of modules below a folder, by the modules' names.
func moduleFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(d.Name(), ".ko"); ok && err == nil {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	return files, err
}

// unpack writes a module as it was before it was compressed, which older kernels
// cannot undo.
func unpack(ctx context.Context, file, to string) error {
	if !strings.HasSuffix(file, ".xz") {
		return command(ctx, "cp", file, to)
	}
	plain, err := exec.CommandContext(ctx, "xz", "-dc", file).Output()
	if err != nil {
		return err
	}
	return os.WriteFile(to, plain, 0o644)
}

// dependencies returns the modules that a module says it needs.
func dependencies(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, nil
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for line := range bytes.SplitSeq(info, []byte{0}) {
		if names, ok := strings.CutPrefix(string(line), "depends="); ok && names != "" {
			return strings.Split(strings.ReplaceAll(names, "-", "_"), ","), nil
		}
	}
	return nil, nil
}
