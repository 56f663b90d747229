// What a dashboard must be, by Grafana's own types. `cargo xtask deployment` puts the dashboards behind this text and has
// tsc look at them.
import type { AnnotationQuery, Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import type { Options as Logs } from "@grafana/schema/dist/esm/raw/composable/logs/panelcfg/x/LogsPanelCfg_types.gen";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
    FieldConfig as TableFields,
    Options as Table,
} from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type {
    FieldConfig as TimeSeriesFields,
    Options as TimeSeries,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// JSON has the values of enums, not their names.
type Plain<T> = T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends (infer Element)[]
        ? Plain<Element>[]
        : T extends object
          ? { [Key in keyof T]: Plain<T[Key]> }
          : T;

// The package has no types of queries, and none of what a data source adds to annotations.
interface Target {
    refId: string;
    datasource: { type: "prometheus" | "loki"; uid: string };
    expr: string;
    legendFormat?: string;
    instant?: boolean;
    range?: boolean;
    format?: "table";
    queryType?: "range" | "instant";
}

type Fields<Custom> = Omit<FieldConfigSource, "defaults"> & {
    defaults: Omit<FieldConfig, "custom"> & { custom?: Partial<Custom> };
};

type Known<Kind, Options, Custom> = Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
    type: Kind;
    options: Partial<Options>;
    fieldConfig?: Fields<Custom>;
    targets: Target[];
};

type AnyPanel =
    | (Omit<RowPanel, "type"> & { type: "row" })
    | Known<"logs", Logs, never>
    | Known<"stat", Stat, never>
    | Known<"table", Table, TableFields>
    | Known<"timeseries", TimeSeries, TimeSeriesFields>;

type Annotations = { list: (AnnotationQuery & { expr: string; titleFormat: string })[] };

type Checked = Plain<Omit<Dashboard, "annotations" | "panels"> & { annotations: Annotations; panels: AnyPanel[] }>;

