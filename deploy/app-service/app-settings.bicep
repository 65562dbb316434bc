// Writing app settings replaces all of them: the caller passes the present ones.
targetScope = 'resourceGroup'

@description('Name of the web app')
param siteName string

@description('All present settings of the app')
@secure()
param present object

@description('Settings to add or overwrite')
param added object

resource site 'Microsoft.Web/sites@2024-11-01' existing = {
  name: siteName
}

resource settings 'Microsoft.Web/sites/config@2024-11-01' = {
  parent: site
  name: 'appsettings'
  properties: union(present, added)
}
