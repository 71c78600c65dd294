package codepipeline

import (
	"fmt"
	"slices"
	"strings"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
)

var nameRule = lazyre.New(`^[A-Za-z0-9.@_-]{1,100}$`)

func badStructure(format string, args ...any) error {
	return awserr.New(api.ErrCodeInvalidStructureException, format, args...)
}

// validate checks a structure (AWS: "Pipeline structure reference").
func validate(d *api.PipelineDeclaration) error {
	if d == nil || !nameRule.MatchString(ptr.Value(d.Name)) {
		return awserr.New(api.ErrCodeValidationException, "The pipeline's name must have 1 to 100 of the characters A-Z a-z 0-9 . @ _ -")
	}
	if (d.ArtifactStore == nil) == (len(d.ArtifactStores) == 0) {
		return badStructure("Pipeline needs exactly one of artifactStore and artifactStores")
	}
	if m := mode(d); m != api.ExecutionModeSuperseded && ptr.Value(d.PipelineType) != "V2" {
		return badStructure("Execution mode %s is for pipelines of type V2", m)
	}
	if len(d.Variables) > 0 && ptr.Value(d.PipelineType) != "V2" {
		return badStructure("Variables are for pipelines of type V2")
	}
	if len(d.Stages) < 2 {
		return badStructure("Pipeline has %d stage(s). There should be a minimum of 2 stages in a pipeline", len(d.Stages))
	}
	seen := names{}
	produced := map[string]bool{}
	namespaces := names{}
	for i := range d.Stages {
		st := &d.Stages[i]
		if !nameRule.MatchString(ptr.Value(st.Name)) || !seen.add(ptr.Value(st.Name)) {
			return badStructure("Stage names must be unique and of 1 to 100 of the characters A-Z a-z 0-9 . @ _ -: %q", ptr.Value(st.Name))
		}
		if st.BeforeEntry != nil || st.OnSuccess != nil || st.OnFailure != nil && len(st.OnFailure.Conditions) > 0 {
			return awserr.New(api.ErrCodeInvalidStageDeclarationException, "Stage %s has conditions, which Slipway does not evaluate yet", ptr.Value(st.Name))
		}
		if err := validateStage(st, i == 0, produced, namespaces); err != nil {
			return err
		}
	}
	return nil
}

type names map[string]bool

// add is false where the name is there already.
func (n names) add(name string) bool {
	if n[name] {
		return false
	}
	n[name] = true
	return true
}

func validateStage(st *api.StageDeclaration, first bool, produced map[string]bool, namespaces names) error {
	if len(st.Actions) == 0 {
		return awserr.New(api.ErrCodeInvalidStageDeclarationException, "Stage %s has no actions", ptr.Value(st.Name))
	}
	byOrder := slices.Clone(st.Actions)
	slices.SortStableFunc(byOrder, func(a, b api.ActionDeclaration) int { return int(runOrder(&a) - runOrder(&b)) })
	seen := names{}
	var fresh []string // put out by the run order that we are in
	for i := range byOrder {
		a := &byOrder[i]
		if i > 0 && runOrder(a) != runOrder(&byOrder[i-1]) {
			for _, o := range fresh {
				produced[o] = true
			}
			fresh = nil
		}
		if !nameRule.MatchString(ptr.Value(a.Name)) || !seen.add(ptr.Value(a.Name)) {
			return badAction(st, a, "the name is not unique in the stage, or has other characters than A-Z a-z 0-9 . @ _ -")
		}
		if source := ptr.Value(a.ActionTypeId.Category) == api.ActionCategorySource; source != first {
			if first {
				return badStructure("Pipeline should start with a stage that only contains source actions: %s is none", ptr.Value(a.Name))
			}
			return badStructure("Source actions belong in the first stage: %s is in %s", ptr.Value(a.Name), ptr.Value(st.Name))
		}
		if ns := ptr.Value(a.Namespace); ns != "" && (ns == "codepipeline" || ns == "variables" || !namespaces.add(ns)) {
			return badAction(st, a, fmt.Sprintf("the namespace %s is reserved or used twice", ns))
		}
		if err := validateAction(st, a, produced); err != nil {
			return err
		}
		for _, o := range a.OutputArtifacts {
			if produced[ptr.Value(o.Name)] || slices.Contains(fresh, ptr.Value(o.Name)) {
				return badStructure("Output Artifact Bundle name must be unique within the pipeline. %s has been used more than once", ptr.Value(o.Name))
			}
			fresh = append(fresh, ptr.Value(o.Name))
		}
	}
	for _, o := range fresh {
		produced[o] = true
	}
	return nil
}

func badAction(st *api.StageDeclaration, a *api.ActionDeclaration, what string) error {
	return awserr.New(api.ErrCodeInvalidActionDeclarationException, "Action %s in stage %s: %s", ptr.Value(a.Name), ptr.Value(st.Name), what)
}

func validateAction(st *api.StageDeclaration, a *api.ActionDeclaration, produced map[string]bool) error {
	p, ok := providerOf(a)
	if !ok {
		t := a.ActionTypeId
		known := slices.Sorted(mapKeys(providers))
		return badAction(st, a, fmt.Sprintf("ActionType (Category: '%s', Provider: '%s', Owner: '%s', Version: '%s') is not available; Slipway has %s",
			ptr.Value(t.Category), ptr.Value(t.Provider), ptr.Value(t.Owner), ptr.Value(t.Version), strings.Join(known, ", ")))
	}
	for _, key := range p.required {
		if a.Configuration[key] == "" {
			return badAction(st, a, "the configuration lacks "+key)
		}
	}
	if n := len(a.InputArtifacts); n < p.minIn || n > p.maxIn {
		return badAction(st, a, fmt.Sprintf("it has %d input artifacts, and may have %d to %d", n, p.minIn, p.maxIn))
	}
	if n := len(a.OutputArtifacts); n < p.minOut || n > p.maxOut {
		return badAction(st, a, fmt.Sprintf("it has %d output artifacts, and may have %d to %d", n, p.minOut, p.maxOut))
	}
	for _, in := range a.InputArtifacts {
		if !produced[ptr.Value(in.Name)] {
			return badStructure("Input Artifact Bundle %s in action %s is not declared as Output Artifact Bundle in any of the preceding actions", ptr.Value(in.Name), ptr.Value(a.Name))
		}
	}
	return nil
}
