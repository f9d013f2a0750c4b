// Command alloy reads a configuration of Grafana Alloy with Alloy's own parser, and
// prints the stages of its loki.process blocks, one a line. Alloy itself takes too
// long to build for a test; its stages are promtail's.
package main

import (
	"fmt"
	"log"
	"os"

	"github.com/grafana/alloy/syntax/ast"
	"github.com/grafana/alloy/syntax/parser"
)

func main() {
	b, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	file, err := parser.ParseFile(os.Args[1], b)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range file.Body {
		block, ok := s.(*ast.BlockStmt)
		if !ok || len(block.Name) != 2 || block.Name[1] != "process" {
			continue
		}
		for _, s := range block.Body {
			if stage, ok := s.(*ast.BlockStmt); ok && len(stage.Name) == 2 {
				fmt.Println(stage.Name[1])
			}
		}
	}
}
