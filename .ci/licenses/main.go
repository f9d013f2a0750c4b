// Command licenses checks the licence of every module that is compiled into the two
// binaries: each must have one that allows us to pass it on under the Apache License
// 2.0. It judges by the text of the file that the module ships, and takes nothing
// that it does not know. -list prints all of them.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// allowed are licences that ask for no more than a notice or, for MPL, the source of
// the files themselves, unchanged ones here. Each is told by sentences that only it
// has; the first that fits counts.
var allowed = []struct {
	name      string
	sentences []string
}{
	{choice, []string{"SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only", "The licensed conditions are one or the other of these two Licenses"}},
	{"Apache-2.0", []string{"Apache License", "Version 2.0", "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"}},
	{"MPL-2.0", []string{"Mozilla Public License", "2.0"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "endorse or promote products"}},
	{"BSD-2-Clause", []string{"Redistribution and use in source and binary forms"}},
	{"ISC", []string{"Permission to use, copy, modify, and", "distribute this software for any purpose with or without fee is hereby granted"}},
	{"CC0-1.0", []string{"CC0 1.0 Universal", "Creative Commons Legal Code"}},
	{"MIT", []string{"Permission is hereby granted, free of charge, to any person obtaining a copy of this software", "without restriction"}},
}

// choice is libcap's: whoever passes it on takes the one or the other.
const choice = "BSD-3-Clause OR GPL-2.0-only"

// refused are the titles of licences that a file may have beside one that is allowed,
// if it does not leave the choice. MPL names them, too, but not in capitals.
var refused = []string{"GNU GENERAL PUBLIC LICENSE", "GNU LESSER GENERAL PUBLIC LICENSE", "GNU AFFERO GENERAL PUBLIC LICENSE"}

func main() {
	list := flag.Bool("list", false, "print the licence of every module")
	flag.Parse()
	if err := run(*list); err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

func run(list bool) error {
	modules, err := compiledIn("./cmd/coredns", "./cmd/dnstrace")
	if err != nil {
		return err
	}
	count := map[string]int{}
	var bad []error
	for _, m := range modules {
		name, err := licence(m.dir)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", m.path, err))
			continue
		}
		count[name]++
		if list {
			fmt.Printf("%-14s %s\n", name, m.path)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		if !list {
			fmt.Printf("%4d %s\n", count[name], name)
		}
	}
	return errors.Join(bad...)
}

type module struct{ path, dir string }

// compiledIn returns the modules that packages of the given commands come from, but
// for our own and the standard library.
func compiledIn(commands ...string) ([]module, error) {
	args := append([]string{"list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Dir}}{{end}}{{end}}"}, commands...)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var modules []module
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		path, dir, found := strings.Cut(lines.Text(), "\t")
		if found && !slices.Contains(modules, module{path, dir}) {
			modules = append(modules, module{path, dir})
		}
	}
	if len(modules) == 0 {
		return nil, errors.New("no module found: run it in the folder of go.mod")
	}
	slices.SortFunc(modules, func(a, b module) int { return strings.Compare(a.path, b.path) })
	return modules, nil
}

// licence names the licences of the module in a folder: every file of one must be known.
func licence(dir string) (string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var names []string
	for _, f := range files {
		name := strings.ToUpper(f.Name())
		// A table of what was taken from others is no licence.
		if f.IsDir() || !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") || strings.HasSuffix(name, ".CSV") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return "", err
		}
		known := judge(string(text))
		if known == "" {
			return "", fmt.Errorf("%s is no licence that is known to be fine: read it, and add it to .ci/licenses or leave the module out", f.Name())
		}
		if !slices.Contains(names, known) {
			names = append(names, known)
		}
	}
	if len(names) == 0 {
		return "", errors.New("no licence: read what it ships, or leave the module out")
	}
	return strings.Join(names, ", "), nil
}

func judge(text string) string {
	text = strings.Join(strings.Fields(text), " ") // lines are broken differently everywhere
	has := func(s string) bool { return strings.Contains(text, s) }
	for _, l := range allowed {
		if !slices.ContainsFunc(l.sentences, func(s string) bool { return !has(s) }) && (l.name == choice || !slices.ContainsFunc(refused, has)) {
			return l.name
		}
	}
	return ""
}
