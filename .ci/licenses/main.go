// Command licenses checks the licence of every module that is compiled into the two
// binaries: each must have one that allows us to pass it on under the Apache License
// 2.0, which package deploy/licence judges. -list prints all of them.
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
	"slices"
	"strings"

	"github.com/dnstrace/dnstrace/deploy/licence"
)

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
		name, err := licence.Of(m.dir)
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
